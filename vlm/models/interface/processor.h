// A conversation with its pictures and clips → ids and pixels; what every family's processor
// offers.
//
//   messages + media ─► Processor ─► ids [T], their layout, Pixels, and for training which ids are
//   learned
//
// Text goes through the checkpoint's own chat template and tokenizer, pictures through its image
// processor, the frames of clips through its video processor. The media of a call belong to the
// image and video parts of the messages, in the order of the parts; kinds may be mixed.
// transformers takes one kind a call; here each part of a mixed prompt has the text that
// transformers gives for it alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "vlm/image/frame_sampling.h"
#include "vlm/image/image.h"
#include "vlm/models/interface/pixels.h"
#include "vlm/models/interface/prompt_layout.h"
#include "vlm/models/interface/turn_spans.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/tokenizer.h"

namespace vlm {

struct EncodedConversation {
  std::vector<std::int64_t> ids;  // [T]
  std::vector<bool> is_trained;   // [T], true for learned tokens; empty for a prompt
  PromptLayout layout;
  Pixels pixels;  // of all media
};

using Medium = std::variant<Image, VideoClip>;

// What represents a picture or a video in the prompt.
struct MediumText {
  enum class Kind { kPicture, kVideo } kind = Kind::kPicture;
  std::string text;
  std::int64_t rows = 0, cols = 0;    // tiles of a split picture, without the global one; else 0
  std::int64_t tokens = 0;            // of the text, those in whose places features stand
  std::int64_t units = 0;             // Pixels::units
  std::vector<PatchGrid> grids = {};  // Pixels::grids
  double grid_s = 0;                  // of a clip, from one of a grid's frames to the next
};

// The frames that are shown of a clip.
struct ClipShape {
  std::vector<double> times_s;
  std::int64_t chosen_frames = 0;      // as process_frames was told (VideoClip::chosen_frames)
  double duration_s = 0;               // of the whole file
  std::int64_t height = 0, width = 0;  // of a frame, in pixels
};

struct ProcessedMedium {
  Pixels pixels;
  MediumText text;
};

// Processed media, which any number of prompts may show.
struct ProcessedMedia {
  Pixels pixels;
  std::vector<MediumText> texts;  // one a medium
};

// Joins media in their order.
ProcessedMedia join_media(const std::vector<ProcessedMedium>& media);

class Processor {
 public:
  virtual ~Processor() = default;

  // `is_whole`: as one tile, whatever the checkpoint says (transformers' do_image_splitting=False).
  // `change` (augmentation) keeps the picture's size, so it doesn't change the text; it is applied
  // before or after the first resize, where the picture has fewer pixels.
  virtual ProcessedMedium process_picture(const Image& image, bool is_whole = false,
                                          const PictureChange& change = {}) const = 0;

  // The text that process_picture gives for a picture of this size in pixels.
  virtual MediumText picture_text(std::int64_t height, std::int64_t width,
                                  bool is_whole = false) const = 0;

  // A clip is processed in two calls, so that its first frames can be encoded while later ones are
  // being decoded: process_frames takes some frames, of a clip of which `clip_frames` were chosen,
  // video_text gives the text of the whole clip. `change` is applied to each frame as to a picture.
  // Calls but the last bring a multiple of frames_at_once.
  virtual Pixels process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                                const PictureChange& change = {}) const = 0;
  virtual MediumText video_text(const ClipShape& clip) const = 0;
  virtual std::int64_t frames_at_once() const { return 1; }

  // The settings that a frame's pixels depend on, as text. For the keys of caches.
  virtual std::string frame_settings() const = 0;

  // How the checkpoint wants clips to be sampled.
  virtual const FrameSampling& frame_sampling() const = 0;

  // The prompt that asks for an answer. The media belong to the image and video parts in their
  // order; the result shares their pixels. Throws Error when numbers or kinds differ.
  virtual EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                            const ProcessedMedia& media) const = 0;

  // A whole conversation. The tokens of `turns` are trained, without those of media.
  virtual EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                                  const ProcessedMedia& media,
                                                  const LossTurns& turns) const = 0;

  // The settings that pixels and texts of pictures depend on, as text. For the keys of caches.
  virtual std::string picture_settings() const = 0;

  virtual const Tokenizer& tokenizer() const = 0;
  // False for a model of text alone; everything about pictures and clips then throws Error.
  virtual bool takes_media() const { return true; }
  // Longest prompt with its answer, in tokens.
  virtual std::int64_t max_positions() const = 0;

  ProcessedMedium process_video(const VideoClip& clip) const;
  ProcessedMedia process_media(const std::vector<Medium>& media) const;
  ProcessedMedia process_pictures(const std::vector<Image>& images) const;

  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const std::vector<Image>& images) const {
    return encode_prompt(messages, process_pictures(images));
  }
  // Trains the assistant's turns: from the character after the turn's opening up to and including
  // the end-of-utterance token.
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
