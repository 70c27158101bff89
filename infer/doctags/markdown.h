// A tree of DocTags → Markdown (CommonMark with GitHub's tables, formulas between dollar signs).
//
// Headers and footers of the page are left out, a picture is `<!-- image -->` below its caption.
// Cells that span several places are repeated in each, as Markdown has no spans. What would mean
// something in Markdown is escaped in text.
#pragma once

#include <string>

#include "infer/doctags/document.h"

namespace vlm::infer {

std::string to_markdown(const DocNode& document);

}  // namespace vlm::infer
