// A tree of DocTags → a page of HTML in UTF-8, without style or script. Formulas stay LaTeX between
// \( \) or \[ \], which MathJax and KaTeX find.
#pragma once

#include <string>

#include "infer/doctags/document.h"

namespace vlm::infer {

std::string to_html(const DocNode& document);

}  // namespace vlm::infer
