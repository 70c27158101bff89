// VQA accuracy: how many of the people asked gave this answer, three being enough.
//
// Reference: VQA v2's evaluation (vqaEval.py): every reference is left out once, and an answer gets
// min(1, equal ones among the rest / 3); the mean of that counts. Answer and references are
// normalised always; the original leaves them as they are where all people agree, where its data is
// normalised anyway. One reference alone counts as ten equal ones.
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
