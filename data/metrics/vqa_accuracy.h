// VQA accuracy: the share of annotators who gave this answer, where three of ten count as all.
//
// Reference: VQA v2's evaluation (vqaEval.py): every reference is left out once, and an answer gets
// min(1, equal ones among the rest / 3); the mean of that counts. Answer and references are
// normalised always; the original doesn't normalise them if all annotators agree, because its data
// is already normalised then. One reference alone counts as ten equal ones.
#pragma once

#include <string>
#include <vector>

namespace vlm::data {

// 0 to 1.
double vqa_accuracy(const std::string& answer, const std::vector<std::string>& references);

// Lower case; punctuation, articles and most periods removed; number words as digits; apostrophes
// put where a contraction lost one.
std::string normalize_vqa_answer(const std::string& text);

}  // namespace vlm::data
