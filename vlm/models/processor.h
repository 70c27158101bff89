// A conversation with its pictures and clips → ids and tiles; what every family's processor offers.
//
//   messages + media ─► Processor ─► ids [T], tiles [N, 3, S, S], and for training which ids are
//   learned
//
// Text goes through the checkpoint's own chat template and tokenizer, pictures through its image
// processor, the frames of clips through its video processor. Media are what stands for the image
// and video parts of the messages, in the parts' order, kinds mixed freely. transformers takes one
// kind a call; here a prompt that mixes them has the text that transformers gives for each alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "vlm/image/frame_sampling.h"
#include "vlm/image/image.h"
#include "vlm/models/turn_spans.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

struct EncodedConversation {
  std::vector<std::int64_t> ids;  // [T]
  std::vector<bool> is_trained;   // [T], true where the loss looks; empty for a prompt
  // [T], the number of the medium that a token stands for, -1 for text; empty for a prompt.
  std::vector<std::int64_t> medium;
  at::Tensor pixel_values;  // [N, 3, S, S] float32; undefined without media
};

using Medium = std::variant<Image, VideoClip>;

// What stands for a medium in the prompt. The kind says which parts it may stand for.
struct MediumText {
  enum class Kind { kPicture, kVideo } kind = Kind::kPicture;
  std::string text;
  std::int64_t rows = 0, cols = 0;  // tiles of a picture beside the whole; 0: it was not split
};

struct ProcessedMedium {
  at::Tensor pixel_values;  // [N, 3, S, S] float32: a picture's tiles, or one tile a frame
  MediumText text;
};

// Media ready for any number of prompts that show them.
struct ProcessedMedia {
  at::Tensor pixel_values;        // [N, 3, S, S] float32, of all media; undefined for none
  std::vector<MediumText> texts;  // one a medium
};

// Joins media in their order.
ProcessedMedia join_media(const std::vector<ProcessedMedium>& media);

class Processor {
 public:
  virtual ~Processor() = default;

  // `is_whole`: as one tile, whatever the checkpoint says (transformers' do_image_splitting=False).
  // `change` is made where the picture has the fewest pixels, its text is that of the whole file.
  virtual ProcessedMedium process_picture(const Image& image, bool is_whole = false,
                                          const PictureChange& change = {}) const = 0;

  // What process_picture gives as text, by the picture's size alone.
  virtual MediumText picture_text(std::int64_t height, std::int64_t width,
                                  bool is_whole = false) const = 0;

  // A clip in two halves, so that its frames can go to the vision encoder piece by piece while
  // later ones are being decoded: the tiles of some frames [F, 3, S, S], and the text of them all.
  // `change` is made to each frame as to a picture.
  virtual at::Tensor process_frames(const std::vector<Image>& frames,
                                    const PictureChange& change = {}) const = 0;
  virtual MediumText video_text(const std::vector<double>& times_s, double duration_s) const = 0;

  // What a frame's tile follows from beside the frame, as text: for the keys of caches.
  virtual std::string frame_settings() const = 0;

  // How the checkpoint wants clips to be sampled.
  virtual const FrameSampling& frame_sampling() const = 0;

  // The prompt that asks for an answer. The media belong to the image and video parts in their
  // order; the result shares their pixel_values. Throws Error when numbers or kinds differ.
  virtual EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                            const ProcessedMedia& media) const = 0;

  // A whole conversation. What is trained of it is `turns` without the tokens of media.
  virtual EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                                  const ProcessedMedia& media,
                                                  const LossTurns& turns) const = 0;

  // What pictures' tiles and texts follow from beside their pixels, as text. For keys of caches.
  virtual std::string picture_settings() const = 0;

  virtual const Tokenizer& tokenizer() const = 0;
  // Tokens that each tile becomes.
  virtual std::int64_t tokens_per_tile() const = 0;
  // Tokens that the model has positions for.
  virtual std::int64_t max_positions() const = 0;

  ProcessedMedium process_video(const VideoClip& clip) const;
  ProcessedMedia process_media(const std::vector<Medium>& media) const;
  ProcessedMedia process_pictures(const std::vector<Image>& images) const;

  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const std::vector<Image>& images) const {
    return encode_prompt(messages, process_pictures(images));
  }
  // Trained are the assistant's turns: from the character after the turn's opening up to and
  // including the end-of-utterance token.
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media) const {
    return encode_conversation(messages, media, assistant_turns(messages));
  }
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const std::vector<Image>& images) const {
    return encode_conversation(messages, process_pictures(images));
  }
};

}  // namespace vlm
