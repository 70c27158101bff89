#include "infer/doctags/answer_format.h"

#include "infer/doctags/html.h"
#include "infer/doctags/markdown.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

AnswerFormat parse_answer_format(const std::string& name) {
  if (name == "text") return AnswerFormat::kText;
  if (name == "doctags") return AnswerFormat::kDoctags;
  if (name == "markdown") return AnswerFormat::kMarkdown;
  if (name == "html") return AnswerFormat::kHtml;
  throw Error({.what = "unknown format",
               .where = "--answer-format",
               .got = concat("'", name, "'"),
               .wanted = "text, doctags, markdown or html"});
}

bool converts(AnswerFormat format) {
  return format == AnswerFormat::kMarkdown || format == AnswerFormat::kHtml;
}

std::string convert_answer(const std::string& text, AnswerFormat format) {
  if (format == AnswerFormat::kMarkdown) return to_markdown(parse_doctags(text));
  if (format == AnswerFormat::kHtml) return to_html(parse_doctags(text));
  return text;
}

}  // namespace vlm::infer
