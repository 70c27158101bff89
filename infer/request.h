// Requests to a Generator, and its answers.
//
//   RequestGroup (requests about the same pictures) ─► Generator ─► a RequestAnswer for each
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infer/media/picture_features.h"
#include "infer/media/segments.h"
#include "infer/search/choices.h"
#include "infer/search/generation_options.h"
#include "infer/search/search.h"
#include "vlm/models/interface/prompt_layout.h"

namespace vlm::infer {

struct Generation : Hypothesis {
  std::string text;  // without leading space, and special tokens but as options say

  double mean_logprob() const;
  double min_logprob() const;
  bool operator==(const Generation&) const = default;
};

// Called with each new id of the answer; return false to end the answer. With several rows (beams,
// several answers) no id is final yet; then it is called once a step, with -1.
using TokenCallback = std::function<bool(std::int64_t)>;

struct Request {
  std::uint64_t id = 0;              // comes back in the RequestAnswer
  std::vector<std::int64_t> prompt;  // ids
  PromptLayout layout = {};          // of the prompt
  GenerationOptions options;
  std::uint64_t stream = 0;  // with options.seed, the source of every random draw
  TokenCallback on_token = {};
  // If not empty, these continuations are scored and nothing is generated.
  std::vector<std::vector<std::int64_t>> choices = {};
  double time_limit_s = 0;  // from when its prompt goes into the model; 0: none
};

struct RequestGroup {
  std::vector<Request> requests;
  std::shared_ptr<PictureFeatures> pictures = {};  // of every request's prompt; null: none
};

struct RequestAnswer {
  std::uint64_t id = 0;
  std::int64_t prompt_tokens = 0;
  std::vector<Generation> generations;  // the best first
  double first_token_entropy = 0;       // nats, of the model's distribution before any filter
  std::vector<ChoiceScore> choices;     // of a request with choices
  std::vector<SegmentScore> segments;   // of an item that was asked segment by segment
  std::string error;                    // why there is no answer; empty: there is one
  std::shared_ptr<const AnswerGrammar> grammar = {};  // that the generations had to follow
};

}  // namespace vlm::infer
