// The processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
//
// A picture becomes one token for each block of its patches, a clip the same for each two frames;
// in Qwen3-VL each two frames stand by themselves behind their time ("<1.5 seconds>"). Positions
// are three numbers: a medium's tokens stand at their frame, row and column behind the text before,
// and the text goes on behind the longer side. A picture is never split, so `is_whole` changes
// nothing. Reference: Qwen2VLProcessor and its two successors, get_rope_index, transformers 5.23.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/interface/processor.h"
#include "vlm/models/parts/prompt_expansion.h"
#include "vlm/models/qwen_vl/qwen_pixels.h"
#include "vlm/models/qwen_vl/qwen_vl_config.h"

namespace vlm {

class QwenVlProcessor : public Processor {
 public:
  // Reads tokenizer, chat template, the processors' configs and config.json of a checkpoint folder.
  explicit QwenVlProcessor(const std::filesystem::path& folder,
                           const TemplateOptions& options = {});

  using Processor::encode_conversation;
  using Processor::encode_prompt;
  ProcessedMedium process_picture(const Image& image, bool is_whole = false,
                                  const PictureChange& change = {}) const override;
  MediumText picture_text(std::int64_t height, std::int64_t width,
                          bool is_whole = false) const override;
  Pixels process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                        const PictureChange& change = {}) const override;
  MediumText video_text(const ClipShape& clip) const override;
  std::int64_t frames_at_once() const override { return frames_.config().temporal_patch_size; }
  std::string frame_settings() const override { return frames_.config().describe(); }
  const FrameSampling& frame_sampling() const override { return frames_.sampling(); }
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override;
  std::string picture_settings() const override { return pictures_.config().describe(); }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::int64_t max_positions() const override {
    return config_.text_config.max_position_embeddings;
  }

 private:
  ConversationCodec codec() const;
  void add_positions(const ProcessedMedia& media, EncodedConversation& encoded) const;

  std::string folder_;
  QwenVlConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ChatTemplate chat_template_;
  QwenPictures pictures_;
  QwenFrames frames_;
  MediaMarks places_;
  std::vector<std::int64_t> media_ids_;
};

// A run of tokens that stands for one grid of a medium.
struct GridPlace {
  PatchGrid grid;        // in tokens, not patches
  double time_step = 1;  // positions from frame to frame, rounded down
};

// Positions of a prompt of `length` tokens: those where `is_medium` is true belong to the grids, in
// their order. Fills positions and next_position of the layout.
void place_grids(const std::vector<bool>& is_medium, const std::vector<GridPlace>& grids,
                 PromptLayout& layout);

}  // namespace vlm
