// The one loop that calls a model to generate: prompts in, answers with log-probabilities out.
//
//   EncodedConversation × B ─► left-padded batch ─► prefill ─► (logits → next ids → cache) … ─►
//   Generation × B
//
// Rows that end leave the batch at once. The answers don't depend on what else is in the batch (up
// to rounding).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infer/generation_options.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::infer {

struct Generation {
  std::vector<std::int64_t> ids;  // the end-of-sequence id included
  std::vector<double> logprobs;   // of each id
  std::string finish_reason;      // "stop" (an end id), "length" or "interrupted" (by the callback)
  std::string text;               // special tokens left out

  double mean_logprob() const;
};

struct GenerationTiming {
  double vision_s = 0;
  double prefill_s = 0;
  double decode_s = 0;
  std::int64_t decoded_tokens = 0;  // after each row's first
  double decode_tokens_per_s() const;
};

// Called with (row, id) for every new token; false ends every row here.
using TokenCallback = std::function<bool(std::size_t, std::int64_t)>;

class Generator {
 public:
  Generator(ModelPtr model, std::shared_ptr<const Processor> processor)
      : model_(std::move(model)), processor_(std::move(processor)) {}

  // Greedy answers, one a prompt. Throws Error for an empty prompt or one that is longer than the
  // model's positions.
  std::vector<Generation> generate(const std::vector<EncodedConversation>& prompts,
                                   const GenerationOptions& options,
                                   const TokenCallback& on_token = {});

  const GenerationTiming& timing() const { return timing_; }  // of the last call
  const Processor& processor() const { return *processor_; }

 private:
  at::Tensor encode_all_images(const std::vector<EncodedConversation>& prompts);

  ModelPtr model_;
  std::shared_ptr<const Processor> processor_;
  GenerationTiming timing_;
};

}  // namespace vlm::infer
