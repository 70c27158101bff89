#include "data/conversations/question.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/conversations/conversation_builder.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

constexpr std::size_t kMostChoices = 26;  // letters

// The texts of an answer: VQAv2's objects hold one, SQuAD's a list.
void add_answers(const Json& value, const std::string& where, std::vector<std::string>& answers) {
  if (value.is_array()) {
    for (const Json& answer : value) add_answers(answer, where, answers);
    return;
  }
  if (value.is_object()) {
    for (const char* key : {"answer", "text", "raw"}) {
      if (value.contains(key)) return add_answers(value[key], concat(where, ": ", key), answers);
    }
  }
  answers.push_back(text_of(value, where));
}

bool is_whole_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

// Where there are choices a number is the place of one. As text it may also be one itself.
std::string answer_of_choices(const Json& value, const std::vector<std::string>& choices,
                              const Columns& columns) {
  const std::string text = text_of(value, concat(columns.row().where, ": response"));
  const auto is_it = [&](const std::string& choice) { return choice == text; };
  if (value.is_string() && std::any_of(choices.begin(), choices.end(), is_it)) return text;
  if (value.is_string() && !is_whole_number(trimmed(text))) return text;
  if (!value.is_string() && is_whole_number(text) && text.size() < 3) {
    const std::size_t place = std::stoul(text);
    if (place < choices.size()) return choices[place];
  }
  columns.fail(
      "the answer is none of the choices", value,
      concat("one of the choices, or its place as a number from 0 to ", choices.size() - 1));
}

// The choices of the row; empty: it has none.
std::vector<std::string> read_choices(const Columns& columns) {
  std::vector<std::string> choices;
  if (!columns.has("choices")) return choices;
  const Json& value = *columns.find("choices");
  if (!value.is_array() || value.size() > kMostChoices) {
    columns.fail("no choices", value, concat("a list of up to ", kMostChoices, " texts"));
  }
  for (const Json& choice : value) {
    choices.push_back(text_of(choice, concat(columns.row().where, ": choices")));
  }
  return choices;
}

}  // namespace

std::optional<std::string> ask_columns(const Columns& columns, const std::string& prompt) {
  const bool asks = columns.has("query") || columns.has("input");
  std::vector<std::string> lines;
  const auto add = [&](const std::string& line) {
    if (!line.empty()) lines.push_back(line);
  };
  add(columns.text("context"));
  add(asks ? columns.text("query") : prompt);
  add(columns.text("input"));
  const std::vector<std::string> choices = read_choices(columns);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    lines.push_back(concat(static_cast<char>('A' + i), ". ", choices[i]));
  }
  if (!asks && prompt.empty()) return std::nullopt;
  return join(lines, "\n");
}

Answers read_answers(const Columns& columns) {
  const Json* response = columns.find("response");
  if (!response || (response->is_structured() && response->empty())) {
    columns.fail("no answer", response ? *response : columns.row().columns,
                 concat("a column '", columns.options().text_column, "', or a field_map"));
  }
  const std::string where = columns.row().where + ": ";
  const std::vector<std::string> choices = read_choices(columns);
  std::vector<std::string> row_answers, all;
  if (!choices.empty() && !response->is_structured()) {
    row_answers = {answer_of_choices(*response, choices, columns)};
  } else {
    add_answers(*response, where + "response", row_answers);
  }
  if (row_answers.empty()) columns.fail("no answer", *response, "at least one");
  const Json* list = columns.find("answers");
  if (list == response || !list)
    return {row_answers.front(), response->is_structured() ? row_answers : all};
  add_answers(*list, where + "answers", all);
  const bool is_known = std::find(all.begin(), all.end(), row_answers.front()) != all.end();
  if (!all.empty() && !is_known) all.insert(all.begin(), row_answers.front());
  return {row_answers.front(), all};
}

}  // namespace vlm::data
