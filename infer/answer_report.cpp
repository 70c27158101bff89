#include "infer/answer_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "infer/structured/answer_grammar.h"
#include "infer/structured/answer_value.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

std::size_t best_choice(const std::vector<double>& probabilities) {
  return static_cast<std::size_t>(std::max_element(probabilities.begin(), probabilities.end()) -
                                  probabilities.begin());
}

// Six decimals: what follows depends on what else was computed beside it.
double shown(double value) {
  return std::round(value * 1e6) / 1e6;
}

OrderedJson report_choices(const RequestAnswer& answer, const ChoiceList& list) {
  const auto probabilities = choice_probabilities(answer.choices, list.by_mean);
  const std::size_t best = best_choice(probabilities);
  OrderedJson fields = {{"text", list.texts[best]}, {"probability", shown(probabilities[best])}};
  fields["probabilities"] = OrderedJson::object();
  fields["logprobs"] = OrderedJson::object();
  for (std::size_t i = 0; i < list.texts.size(); ++i) {
    fields["probabilities"][list.texts[i]] = shown(probabilities[i]);
    fields["logprobs"][list.texts[i]] = shown(answer.choices[i].logprob);
  }
  return fields;
}

// 75.5 → "0:01:15.5"
std::string to_clock(double seconds) {
  const auto tenths = static_cast<std::int64_t>(std::llround(seconds * 10));
  const std::int64_t whole = tenths / 10;
  char text[48];
  std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(whole / 3600),
                static_cast<long long>(whole / 60 % 60), static_cast<long long>(whole % 60));
  return tenths % 10 == 0 ? text : concat(text, ".", tenths % 10);
}

OrderedJson report_segments(const std::vector<SegmentScore>& segments) {
  const SegmentScore& best = segments.front();
  OrderedJson fields = {{"text", concat(to_clock(best.start_s), "-", to_clock(best.end_s))},
                        {"probability", shown(best.probability)}};
  fields["segments"] = OrderedJson::array();
  for (const SegmentScore& segment : segments) {
    fields["segments"].push_back({{"start_s", shown(segment.start_s)},
                                  {"end_s", shown(segment.end_s)},
                                  {"probability", shown(segment.probability)},
                                  {"logprob", shown(segment.logprob)}});
  }
  return fields;
}

AnswerValue value_of(const RequestAnswer& answer, const Generation& generation) {
  if (!answer.grammar) return {};
  return read_answer(answer.grammar->rule(), generation.text, generation.finish_reason);
}

// The columns are there in every row.
void add_json(const OrderedJson& value, const AnswerReportOptions& options, OrderedJson& fields) {
  fields["json"] = value;
  for (const std::string& name : options.json_columns) {
    const bool has_it = value.is_object() && value.contains(name);
    fields["json." + name] = has_it ? value[name] : OrderedJson();
  }
}

OrderedJson report_generation(const RequestAnswer& answer, const Generation& generation,
                              const AnswerReportOptions& options) {
  OrderedJson fields = {{"text", convert_answer(generation.text, options.format)}};
  if (converts(options.format)) fields["doctags"] = generation.text;
  if (options.has_json) add_json(value_of(answer, generation).value, options, fields);
  fields["mean_logprob"] = shown(generation.mean_logprob());
  fields["min_logprob"] = shown(generation.min_logprob());
  if (options.has_scores) fields["score"] = shown(generation.score);
  fields["finish_reason"] = generation.finish_reason;
  return fields;
}

// From 0 to 1.
double confidence(const RequestAnswer& answer, const AnswerReportOptions& options) {
  if (options.by_segment) return answer.segments.front().probability;
  if (options.choices.texts.empty()) return std::exp(answer.generations[0].mean_logprob());
  const auto probabilities = choice_probabilities(answer.choices, options.choices.by_mean);
  return probabilities[best_choice(probabilities)];
}

bool is_withheld(const RequestAnswer& answer, const AnswerReportOptions& options) {
  return options.abstain_below && confidence(answer, options) < *options.abstain_below;
}

}  // namespace

OrderedJson report_answer(const RequestAnswer& answer, const AnswerReportOptions& options) {
  OrderedJson fields;
  if (options.by_segment) {
    fields = report_segments(answer.segments);
  } else if (!options.choices.texts.empty()) {
    fields = report_choices(answer, options.choices);
  } else {
    fields = report_generation(answer, answer.generations[0], options);
    fields["first_token_entropy"] = shown(answer.first_token_entropy);
    if (options.has_alternatives) {
      fields["alternatives"] = OrderedJson::array();
      for (std::size_t i = 1; i < answer.generations.size(); ++i) {
        fields["alternatives"].push_back(report_generation(answer, answer.generations[i], options));
      }
    }
  }
  const std::string fault = answer_fault(answer);
  if (!fault.empty()) fields["error"] = fault;
  if (!options.abstain_below) return fields;
  const bool abstains = is_withheld(answer, options);
  fields["abstained"] = abstains;
  fields["withheld_text"] = nullptr;
  if (abstains) std::swap(fields["text"], fields["withheld_text"]);
  if (abstains && fields.contains("doctags")) fields["doctags"] = nullptr;
  if (abstains && options.has_json) add_json(nullptr, options, fields);
  return fields;
}

std::string answer_fault(const RequestAnswer& answer) {
  return answer.generations.empty() ? "" : value_of(answer, answer.generations[0]).fault;
}

std::optional<std::string> shown_text(const RequestAnswer& answer,
                                      const AnswerReportOptions& options) {
  const OrderedJson text = report_answer(answer, options)["text"];
  return text.is_null() ? std::nullopt : std::optional(text.get<std::string>());
}

OrderedJson example_report(const AnswerReportOptions& options) {
  RequestAnswer answer{.generations = {Generation{}, Generation{}}, .segments = {SegmentScore{}}};
  answer.choices.resize(options.choices.texts.size());
  for (ChoiceScore& score : answer.choices) score.tokens = 1;
  OrderedJson fields = report_answer(answer, options);
  for (const char* name : {"text", "doctags", "withheld_text"}) {
    if (fields.contains(name)) fields[name] = "";
  }
  return fields;
}

std::vector<std::string> report_columns(const AnswerReportOptions& options) {
  std::vector<std::string> names;
  const OrderedJson fields = example_report(options);
  for (const auto& [name, value] : fields.items()) names.push_back(name);
  return names;
}

std::vector<std::string> reserved_columns(const AnswerReportOptions& options) {
  std::vector<std::string> names = report_columns({.abstain_below = 0,
                                                   .has_alternatives = true,
                                                   .has_scores = true,
                                                   .format = AnswerFormat::kMarkdown,
                                                   .has_json = options.has_json,
                                                   .json_columns = options.json_columns});
  for (const std::string& name : report_columns({.choices = {.texts = {"yes", "no"}}})) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  names.emplace_back("error");
  return names;
}

}  // namespace vlm::infer
