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
#include <string>
#include <vector>

#include "vlm/image/image_processor.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

struct EncodedConversation {
  std::vector<std::int64_t> ids;  // [T]
  std::vector<bool> is_trained;   // [T], true where the loss looks; empty for a prompt
  at::Tensor pixel_values;        // [N, 3, S, S] float32; undefined without pictures
};

// Pictures ready for any number of prompts that show them.
struct ProcessedPictures {
  at::Tensor pixel_values;         // [N, 3, S, S] float32, of all pictures; undefined for none
  std::vector<std::string> texts;  // what stands for each picture in the prompt
};

class Processor {
 public:
  virtual ~Processor() = default;

  virtual ProcessedPictures process_pictures(const std::vector<Image>& images) const = 0;

  // The texts alone of pictures of these sizes, as they are shown (turned upright).
  virtual std::vector<std::string> picture_texts(const std::vector<PixelSize>& sizes) const = 0;

  // The prompt that asks for an answer. The pictures belong to the image parts in their order; the
  // result shares their pixel_values. Throws Error when their numbers differ.
  virtual EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                            const ProcessedPictures& pictures) const = 0;
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const std::vector<Image>& images) const {
    return encode_prompt(messages, process_pictures(images));
  }

  // A whole conversation. Trained are the assistant's turns: from the character after the turn's
  // opening up to and including the end-of-utterance token.
  virtual EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                                  const ProcessedPictures& pictures) const = 0;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const std::vector<Image>& images) const {
    return encode_conversation(messages, process_pictures(images));
  }

  // What pictures' tiles and texts follow from beside their pixels, as text. For keys of caches.
  virtual std::string picture_settings() const = 0;

  virtual const Tokenizer& tokenizer() const = 0;
  // Tokens that each tile becomes.
  virtual std::int64_t tokens_per_tile() const = 0;
};

}  // namespace vlm
