#include "infer/items/questions.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "infer/structured/answer_rule.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"

namespace vlm::infer {
namespace {

std::string value_of(const Entry& entry, const std::string& field) {
  const std::filesystem::path path(entry.path);
  std::string value;
  if (field == "path") value = escape_bytes(entry.path);
  if (field == "name") value = escape_bytes(path.filename().string());
  if (field == "stem") value = escape_bytes(path.stem().string());
  if (field == "id") value = entry.id;
  if (!value.empty()) return value;
  if (field == "question" && entry.question) return *entry.question;
  const auto column = entry.columns.find(field);
  if (column == entry.columns.end() || column->is_null()) {
    throw Error({.what = "the row has no value for a field of the question", .got = field});
  }
  if (column->is_string()) return column->get<std::string>();
  const Json written = *column;
  return is_any_number(written) ? number_text(written) : exact_numbers(*column).dump();
}

Question parse_question(std::string_view line, std::size_t number, const std::string& where) {
  const OrderedJson row = parse_ordered_json(line, where);
  if (!row.is_object() || !row.contains("question") || !row["question"].is_string()) {
    throw Error({.what = "no 'question'",
                 .where = where,
                 .got = describe(Json(row)),
                 .wanted = "{\"id\": …, \"question\": …}"});
  }
  OrderedJson overrides;
  for (const auto& [key, value] : row.items()) {
    if (is_rule_name(key)) {
      read_rule(key, value, concat(where, ": ", key));
      overrides[key] = value;
    } else if (key != "id" && key != "question") {
      throw Error({.what = "unknown key",
                   .where = where,
                   .got = key,
                   .wanted = "'id', 'question', 'response_format' and 'structured_outputs'"});
    }
  }
  Question question{
      .id = concat(number), .text = row["question"], .overrides = std::move(overrides)};
  if (row.contains("id")) {
    if (!row["id"].is_string() && !row["id"].is_number_integer()) {
      throw Error({.what = "wrong type",
                   .where = where + ": id",
                   .got = describe(Json(row["id"])),
                   .wanted = "a string or a whole number"});
    }
    question.id = row["id"].is_string() ? row["id"].get<std::string>() : row["id"].dump();
  }
  if (question.id.empty() || question.id.find('/') != std::string::npos) {
    throw Error({.what = "unusable id of a question",
                 .where = where,
                 .got = concat("'", question.id, "'"),
                 .wanted = "a name without '/'"});
  }
  return question;
}

}  // namespace

PromptTemplate::PromptTemplate(const std::string& text, const std::vector<std::string>& known) {
  const Error unmatched({.what = "unmatched brace in the question",
                         .got = text,
                         .hint = "write {{ and }} for braces"});
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_brace = text[i] == '{' || text[i] == '}';
    if (!is_brace || (i + 1 < text.size() && text[i + 1] == text[i])) {
      plain += text[i];
      i += is_brace ? 1 : 0;
      continue;
    }
    const auto end = text.find('}', i);
    if (text[i] == '}' || end == std::string::npos) throw unmatched;
    const std::string field = text.substr(i + 1, end - i - 1);
    if (std::find(known.begin(), known.end(), field) == known.end()) {
      throw Error({.what = "unknown field in the question",
                   .got = concat("{", field, "}"),
                   .wanted = "one of " + join(known),
                   .hint = "write {{ and }} for braces"});
    }
    pieces_.push_back({std::move(plain), false});
    pieces_.push_back({field, true});
    plain.clear();
    i = end;
  }
  pieces_.push_back({std::move(plain), false});
}

std::string PromptTemplate::fill(const Entry& entry) const {
  std::string text;
  for (const Piece& piece : pieces_) {
    text += piece.is_field ? value_of(entry, piece.text) : piece.text;
  }
  return text;
}

std::vector<Question> load_questions(const std::vector<std::string>& texts,
                                     const std::string& file) {
  std::vector<Question> questions;
  for (const std::string& text : texts) questions.push_back({concat(questions.size() + 1), text});
  std::set<std::string> ids;
  for (const Question& question : questions) ids.insert(question.id);
  if (file.empty()) return questions;
  const std::string text = load_plain_text(file);
  for (const TextLine& line : split_lines(text)) {
    const std::string where = concat(file, ":", line.number);
    if (line.text.find_first_not_of(" \t") == std::string::npos) continue;
    questions.push_back(parse_question(line.text, questions.size() + 1, where));
    if (!ids.insert(questions.back().id).second) {
      throw Error(
          {.what = "id of a question given twice", .where = where, .got = questions.back().id});
    }
  }
  if (questions.size() == texts.size()) {
    throw Error({.what = "no questions in the file", .where = file});
  }
  return questions;
}

std::vector<std::string> template_fields(const EntrySource& source) {
  std::vector<std::string> fields = {"path", "name", "stem", "id", "question"};
  for (const std::string& name : source.columns()) {
    if (std::find(fields.begin(), fields.end(), name) == fields.end()) fields.push_back(name);
  }
  return fields;
}

}  // namespace vlm::infer
