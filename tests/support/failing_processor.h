// A processor that does what another does, and whatever else a test wants at each call.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "vlm/models/interface/processor.h"

namespace vlm {

// Called by any thread; may throw.
struct ProcessorHooks {
  std::function<void()> on_picture = [] {};
  std::function<void()> on_frames = [] {};
  std::function<void()> on_prompt = [] {};
  std::function<void(EncodedConversation&)> on_conversation = [](EncodedConversation&) {};
};

class FailingProcessor : public Processor {
 public:
  FailingProcessor(std::unique_ptr<Processor> inner, ProcessorHooks hooks)
      : inner_(std::move(inner)), hooks_(std::move(hooks)) {}

  ProcessedMedium process_picture(const Image& image, bool is_whole,
                                  const PictureChange& change) const override {
    hooks_.on_picture();
    return inner_->process_picture(image, is_whole, change);
  }
  MediumText picture_text(std::int64_t height, std::int64_t width, bool is_whole) const override {
    return inner_->picture_text(height, width, is_whole);
  }
  Pixels process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                        const PictureChange& change) const override {
    hooks_.on_frames();
    return inner_->process_frames(frames, clip_frames, change);
  }
  MediumText video_text(const ClipShape& clip) const override { return inner_->video_text(clip); }
  std::int64_t frames_at_once() const override { return inner_->frames_at_once(); }
  std::string frame_settings() const override { return inner_->frame_settings(); }
  const FrameSampling& frame_sampling() const override { return inner_->frame_sampling(); }
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override {
    hooks_.on_prompt();
    return inner_->encode_prompt(messages, media);
  }
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override {
    EncodedConversation encoded = inner_->encode_conversation(messages, media, turns);
    hooks_.on_conversation(encoded);
    return encoded;
  }
  std::string picture_settings() const override { return inner_->picture_settings(); }
  const Tokenizer& tokenizer() const override { return inner_->tokenizer(); }
  bool takes_media() const override { return inner_->takes_media(); }
  std::int64_t max_positions() const override { return inner_->max_positions(); }

 private:
  std::unique_ptr<Processor> inner_;
  ProcessorHooks hooks_;
};

}  // namespace vlm
