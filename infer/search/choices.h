// Given answers → their probabilities, to use a generating model as a classifier.
//
//   texts ─► encode_choices ─► ids ─► (Generator scores every one behind the same prompt) ─►
//   ChoiceScore ─► probabilities
//
// A choice is scored as a whole turn, as in training: its text as the chat template writes an
// answer, and the end-of-utterance token. So the probability of "yes" doesn't include that of "yes,
// two of them".
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "infer/search/search.h"
#include "vlm/core/json.h"
#include "vlm/models/interface/processor.h"

namespace vlm::infer {

// Log-likelihood of one given continuation.
struct ChoiceScore {
  double logprob = 0;                              // summed over its tokens
  std::int64_t tokens = 0;                         // its length
  std::vector<double> logprobs = {};               // of each token
  std::vector<std::vector<ChosenToken>> top = {};  // as Hypothesis::top
};

struct ChoiceList {
  std::vector<std::string> texts;
  bool by_mean = false;  // rank by log-probability a token instead of the sum
};

// One text a line (empty lines don't count), or a JSON array of strings and numbers. Throws Error
// naming the file.
std::vector<std::string> load_choices(const std::filesystem::path& path);

// Throws Error unless there are two or more, all different, none empty.
void check_choices(const std::vector<std::string>& texts);

// The ids of each text as an answer.
std::vector<std::vector<std::int64_t>> encode_choices(const Processor& processor,
                                                      const std::vector<std::string>& texts);

// Softmax over the choices of the summed or mean log-probabilities.
std::vector<double> choice_probabilities(const std::vector<ChoiceScore>& scores, bool by_mean);

}  // namespace vlm::infer
