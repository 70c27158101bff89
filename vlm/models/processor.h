// A conversation with its pictures → ids and tiles; what every family's processor offers.
//
//   messages + images ─► Processor ─► ids [T], tiles [N, 3, S, S], and for training which ids are
//   learned
//
// Text goes through the checkpoint's own chat template and tokenizer, pictures through its image
// processor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "vlm/image/image.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

struct EncodedConversation {
  std::vector<std::int64_t> ids;  // [T]
  std::vector<bool> is_trained;   // [T], true where the loss looks; empty for a prompt
  at::Tensor pixel_values;        // [N, 3, S, S] float32; undefined without pictures
};

class Processor {
 public:
  virtual ~Processor() = default;

  // The prompt that asks for an answer. `images` belong to the image parts in their order.
  // Throws Error when their numbers differ.
  virtual EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                            const std::vector<Image>& images) const = 0;

  // A whole conversation. Trained are the assistant's turns: from the character after the turn's
  // opening up to and including the end-of-utterance token.
  virtual EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                                  const std::vector<Image>& images) const = 0;

  virtual const Tokenizer& tokenizer() const = 0;
};

}  // namespace vlm
