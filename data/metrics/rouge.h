// ROUGE-L: the longest common subsequence of words, as an F1 score.
//
// Reference: rouge_score 0.1.2, "rougeL" without stemmer: words are runs of a-z and 0-9 in lower
// case; everything else separates.
#pragma once

#include <string>

namespace vlm::data {

// 0 to 1.
double rouge_l(const std::string& answer, const std::string& reference);

}  // namespace vlm::data
