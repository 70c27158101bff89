// CIDEr-D: agreement with several descriptions of a picture, rare phrases counting more.
//
//   tokens (caption_tokenizer) ─► n-grams of 1 to 4 words, weighted by tf · idf ─► clipped cosine
//   to every reference, less for another length ─► mean · 10
//
// The idf comes from the references of all items given, so scores of different sets of items can't
// be compared, and a single item always scores 0. Reference: pycocoevalcap 1.2 (n = 4, σ = 6).
#pragma once

#include <vector>

#include "data/metrics/metric.h"

namespace vlm::data {

// A score of 0 to 10 an item.
std::vector<double> cider(const std::vector<AnswerPair>& pairs);

}  // namespace vlm::data
