// A request's messages and media → the prompt for the model.
//
//   ChatRequest ─► pictures and clips decoded and processed, text tokenized ─► PreparedPrompt
//
// Heavy work, for the threads of a pool; any of them may call it. Throws ApiError naming the part
// that can't be read, or telling that the prompt is too long.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "infer/search/generation_options.h"
#include "infer/server/api/request.h"
#include "infer/server/models/special_texts.h"
#include "vlm/models/interface/processor.h"

namespace vlm::infer {

struct PreparedPrompt {
  EncodedConversation prompt;
  // Where an answer goes on: what it is so far, and how many of the prompt's last tokens that is.
  std::string begun = {};
  std::int64_t begun_tokens = 0;
  std::int64_t pictures = 0, clips = 0, frames = 0;
  double seconds = 0;  // to decode and process
};

class PromptMaker {
 public:
  // `processor` must outlive this. `media_ids` stand for media in a prompt.
  PromptMaker(const Processor& processor, ApiLimits limits, std::vector<std::int64_t> media_ids);

  // `is_unwanted` is asked between media; an empty prompt then comes back.
  PreparedPrompt prepare(const ChatRequest& request,
                         const std::function<bool()>& is_unwanted = {}) const;
  // The text as it is, special tokens in it included.
  PreparedPrompt prepare(const CompletionRequest& request) const;

  // Of an answer that goes on and follows a grammar: tells the options where the grammar stands,
  // and takes tokens from the prompt's end that the answer spells anew (forced_begin.h).
  void force_begin(PreparedPrompt& prepared, GenerationOptions& options) const;

  // A client's text, in which nothing is a special token.
  std::string as_plain(const std::string& text) const { return specials_.as_plain(text); }

 private:
  ProcessedMedium process(const MediaInput& input, PreparedPrompt& prepared) const;
  ProcessedMedium process_clip(const MediaInput& input, PreparedPrompt& prepared) const;
  std::vector<Message> plain(const std::vector<Message>& messages) const;
  void continue_answer(const Message& answer, PreparedPrompt& prepared) const;
  void check_length(const EncodedConversation& prompt) const;

  const Processor& processor_;
  const ApiLimits limits_;
  const std::vector<std::int64_t> media_ids_;
  const SpecialTexts specials_;
};

}  // namespace vlm::infer
