// The format in which an answer is shown: as text, or a document model's DocTags as they are, as
// Markdown or as HTML.
#pragma once

#include <string>

namespace vlm::infer {

enum class AnswerFormat { kText, kDoctags, kMarkdown, kHtml };

// Throws Error for an unknown name.
AnswerFormat parse_answer_format(const std::string& name);

// True where the text is another than the model's.
bool converts(AnswerFormat format);

// `text` with its special tokens; any text will do (parse_doctags).
std::string convert_answer(const std::string& text, AnswerFormat format);

}  // namespace vlm::infer
