#include "infer/search/choices.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm::infer {

std::vector<std::string> load_choices(const std::filesystem::path& path) {
  const std::string text = load_plain_text(path, 1ULL << 26);
  const std::string where = path.string();
  std::vector<std::string> choices;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') {
    for (const Json& entry : parse_json(text, where, Numbers::kAsWritten)) {
      if (!entry.is_string() && !is_any_number(entry)) {
        throw Error({.what = "wrong type",
                     .where = where,
                     .got = vlm::describe(entry),
                     .wanted = "an array of strings"});
      }
      choices.push_back(entry.is_string() ? entry.get<std::string>() : number_text(entry));
    }
    return choices;
  }
  for (const TextLine& line : split_lines(text)) {
    if (!is_valid_utf8(line.text)) {
      throw Error({.what = "the text is not UTF-8", .where = concat(where, ":", line.number)});
    }
    if (!line.text.empty()) choices.emplace_back(line.text);
  }
  return choices;
}

void check_choices(const std::vector<std::string>& texts) {
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    if (text.find_first_not_of(" \t") == std::string::npos) {
      throw Error({.what = "a choice is empty", .where = "--choices"});
    }
    if (!seen.insert(text).second) {
      throw Error(
          {.what = "a choice is given twice", .where = "--choices", .got = concat("'", text, "'")});
    }
  }
  if (texts.size() < 2) {
    throw Error({.what = "nothing to choose from",
                 .where = "--choices",
                 .got = concat(texts.size()),
                 .wanted = "two or more"});
  }
}

std::vector<std::vector<std::int64_t>> encode_choices(const Processor& processor,
                                                      const std::vector<std::string>& texts) {
  std::vector<std::vector<std::int64_t>> choices;
  for (const std::string& text : texts) {
    const std::vector<Message> turns = {
        {.role = "user", .content = {{.type = "text", .text = "?"}}},
        {.role = "assistant", .content = {{.type = "text", .text = text}}}};
    const EncodedConversation encoded = processor.encode_conversation(turns, ProcessedMedia{});
    std::vector<std::int64_t> ids;
    for (std::size_t i = 0; i < encoded.ids.size(); ++i) {
      if (encoded.is_trained[i]) ids.push_back(encoded.ids[i]);
    }
    choices.push_back(std::move(ids));
  }
  return choices;
}

std::vector<double> choice_probabilities(const std::vector<ChoiceScore>& scores, bool by_mean) {
  std::vector<double> values;
  for (const ChoiceScore& score : scores) {
    values.push_back(by_mean ? score.logprob / static_cast<double>(score.tokens) : score.logprob);
  }
  const double best = *std::max_element(values.begin(), values.end());
  double total = 0;
  for (double& value : values) total += value = std::exp(value - best);
  for (double& value : values) value /= total;
  return values;
}

}  // namespace vlm::infer
