// The processor of SmolVLM2, the first SmolVLM and Idefics3: expands each picture and clip to its
// tokens in the prompt.
//
// A picture that was split becomes rows of "<fake><row_r_col_c><image>…" and the global image at
// the end, one that was not "<fake><global-img><image>…<fake>". A clip becomes an opening sentence
// and a picture with its time for each frame (smolvlm_video_prompt.h). Published chat templates
// don't render video parts, so messages with one are rendered by a template of the processor, as in
// the reference: SmolVLMProcessor, transformers 5.23.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vlm/image/image_processor.h"
#include "vlm/image/video_processor.h"
#include "vlm/models/interface/processor.h"
#include "vlm/models/parts/prompt_expansion.h"
#include "vlm/models/smolvlm/smolvlm_config.h"

namespace vlm {

class SmolVlmProcessor : public Processor {
 public:
  // Reads tokenizer, chat template, preprocessor_config.json, processor_config.json and, for the
  // model's positions, config.json of a checkpoint folder.
  explicit SmolVlmProcessor(const std::filesystem::path& folder,
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
  std::string frame_settings() const override { return video_processor_.config().describe(); }
  const FrameSampling& frame_sampling() const override {
    return video_processor_.config().sampling;
  }
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override;
  std::string picture_settings() const override;
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::int64_t max_positions() const override {
    return config_.text_config.max_position_embeddings;
  }

  // Tokens of a tile.
  std::int64_t tokens_per_tile() const { return image_seq_len_; }

  // The prompt string with the tokens of all media spelled out. For tests and inspection.
  std::string expand_prompt(const std::vector<Message>& messages, const ProcessedMedia& media,
                            bool add_generation_prompt) const;

 private:
  ConversationCodec codec() const;
  Pixels to_pixels(const at::Tensor& tiles) const;
  const ChatTemplate& template_for(const std::vector<Message>& messages) const;

  std::string folder_;
  SmolVlmConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::int64_t> media_ids_;
  ChatTemplate chat_template_;
  ChatTemplate video_template_;  // for messages with a video part
  ImageProcessor image_processor_;
  VideoProcessor video_processor_;
  std::int64_t image_seq_len_;
  std::string end_mark_;  // of a turn
};

// The text of one picture of rows × cols tiles (0 × 0: not split), each of image_seq_len tokens.
std::string image_prompt(std::int64_t rows, std::int64_t cols, std::int64_t image_seq_len);

}  // namespace vlm
