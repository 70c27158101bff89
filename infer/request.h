// Requests to a Generator, and its answers.
//
//   RequestGroup (requests about the same pictures) ─► Generator ─► a RequestAnswer for each
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
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

// Called once a step with the answers so far (Search::answers); return false to end them there.
using StepCallback = std::function<bool(std::span<const Hypothesis>)>;

struct Request {
  std::uint64_t id = 0;              // comes back in the RequestAnswer
  std::vector<std::int64_t> prompt;  // ids
  PromptLayout layout = {};          // of the prompt
  GenerationOptions options;
  std::uint64_t stream = 0;  // with options.seed, the source of every random draw
  StepCallback on_step = {};
  std::function<void()> on_start = {};  // when it gets its place
  // If not empty, these continuations are scored and nothing is generated.
  std::vector<std::vector<std::int64_t>> choices = {};
  double time_limit_s = 0;  // from when its prompt goes into the model; 0: none
};

struct RequestGroup {
  std::vector<Request> requests;
  std::shared_ptr<PictureFeatures> pictures = {};  // of every request's prompt; null: none
};

// How a request ended.
enum class Outcome {
  kAnswered,
  kRefused,             // it can't be answered: too long a prompt, a video that can't be read
  kCancelled,           // its caller wanted no answer any more
  kTimedOut,            // in the queue, or by its own limit
  kStopped,             // the engine was told to end
  kFailed,              // the model threw, or memory ran out, and it was this request's doing
  kFailedBesideOthers,  // the same, but whose doing it was isn't known: alone it may be answered
};

struct RequestAnswer {
  std::uint64_t id = 0;
  Outcome outcome = Outcome::kAnswered;
  std::int64_t prompt_tokens = 0;
  std::int64_t media_tokens = 0;        // of these, those in whose places features stand
  std::int64_t cached_tokens = 0;       // of these, those that were computed for an earlier request
  std::vector<Generation> generations;  // the best first
  double first_token_entropy = 0;       // nats, of the model's distribution before any filter
  std::vector<ChoiceScore> choices;     // of a request with choices
  std::vector<SegmentScore> segments;   // of an item that was asked segment by segment
  std::string error;                    // why there is no answer; empty: there is one
  // Seconds that it waited, and in which its pictures were encoded, its prompt was computed and its
  // tokens were decoded, with what was done for others between.
  double queue_s = 0, vision_s = 0, prefill_s = 0, decode_s = 0;
  double mask_s = 0;  // of decode_s, finding what the grammar allows
  std::shared_ptr<const AnswerGrammar> grammar = {};  // that the generations had to follow
};

}  // namespace vlm::infer
