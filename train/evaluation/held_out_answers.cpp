#include "train/evaluation/held_out_answers.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/metrics/answer_match.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

std::string text_of(const Message& message) {
  std::string text;
  for (const ContentPart& part : message.content) text += part.text;
  return data::strip_space(text);
}

}  // namespace

HeldOutAnswer make_held_out(const data::Sample& sample, std::int64_t index) {
  if (sample.messages.size() < 2 || sample.messages.back().role != "assistant") {
    throw Error({.what = "sample doesn't end with an assistant turn", .where = sample.where});
  }
  HeldOutAnswer item{.index = index, .where = sample.where};
  for (const Message& message : sample.messages) {
    if (message.role == "user") item.question = text_of(message);
  }
  item.references = sample.references;
  if (item.references.empty()) item.references = {text_of(sample.messages.back())};
  return item;
}

OrderedJson to_json(const HeldOutAnswer& answer) {
  return {{"index", answer.index},
          {"where", answer.where},
          {"question", answer.question},
          {"references", answer.references},
          {"answer", answer.answer}};
}

HeldOutAnswer parse_held_out(const Json& json, const std::string& where) {
  HeldOutAnswer answer;
  read_fields(json,
              {{"index", &answer.index},
               {"where", &answer.where},
               {"question", &answer.question},
               {"references", &answer.references},
               {"answer", &answer.answer}},
              UnknownKeys::kRefuse, where);
  return answer;
}

void save_answers(const std::filesystem::path& path, const std::vector<HeldOutAnswer>& answers) {
  std::string text;
  for (const HeldOutAnswer& answer : answers) text += to_json(answer).dump() + "\n";
  save_text(path, text);
}

std::vector<HeldOutAnswer> load_answers(const std::filesystem::path& path) {
  std::vector<HeldOutAnswer> answers;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const std::string where = concat(path.string(), ":", answers.size() + 1);
    answers.push_back(parse_held_out(parse_json(line, where), where));
  }
  return answers;
}

std::filesystem::path before_path(const std::filesystem::path& output_dir) {
  return output_dir / "eval_before.jsonl";
}

std::filesystem::path answers_path(const std::filesystem::path& output_dir) {
  return output_dir / "eval_answers.jsonl";
}

data::MetricScore score_answers(const std::string& metric,
                                const std::vector<HeldOutAnswer>& answers) {
  std::vector<data::AnswerPair> pairs;
  for (const HeldOutAnswer& item : answers) pairs.push_back({item.answer, item.references});
  return data::compute_metric(metric, pairs);
}

}  // namespace vlm::train
