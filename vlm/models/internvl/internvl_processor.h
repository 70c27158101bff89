// The processor of InternVL in the layout of transformers; internvl_chat_processor.h has that of
// the original one.
//
// A picture becomes "<img><IMG_CONTEXT>…</img>", as many tokens as its tiles have, a clip such a
// text for each frame behind "Frame1: ", "Frame2: " …, a line each. Reference: InternVLProcessor,
// transformers 5.23.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/models/interface/processor.h"
#include "vlm/models/internvl/internvl_config.h"
#include "vlm/models/internvl/internvl_pixels.h"
#include "vlm/models/parts/prompt_expansion.h"

namespace vlm {

// The tokens around and for media, which tokenizer_config.json names.
struct InternVlTokens {
  std::string begin = "<img>", end = "</img>", picture = "<IMG_CONTEXT>", video = "<video>";

  static InternVlTokens load(const std::filesystem::path& folder);
};

// What a processor is made of.
struct InternVlParts {
  std::string folder;
  InternVlConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  ChatTemplate chat_template;
  std::string turn_end;  // the token that ends a turn
  InternVlPictures pictures;
  std::optional<InternVlFrames> frames;  // none in the original layout
  InternVlTokens tokens;
  std::int64_t tile_tokens;  // of one tile
  bool adds_special_tokens;  // in front of a prompt
  const char* id_place;      // where the id of the token for pictures stands
};

class InternVlProcessor : public Processor {
 public:
  // Reads tokenizer, chat template, the processors' configs and config.json of a checkpoint folder.
  explicit InternVlProcessor(const std::filesystem::path& folder,
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
  std::string frame_settings() const override { return parts_.frames->config().describe(); }
  const FrameSampling& frame_sampling() const override { return parts_.frames->sampling(); }
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override;
  std::string picture_settings() const override { return parts_.pictures.config().describe(); }
  const Tokenizer& tokenizer() const override { return *parts_.tokenizer; }
  std::int64_t max_positions() const override {
    return parts_.config.text_config.max_position_embeddings;
  }

 protected:
  explicit InternVlProcessor(InternVlParts parts);

  Pixels to_pixels(const at::Tensor& tiles) const;
  const InternVlParts& parts() const { return parts_; }

 private:
  ConversationCodec codec() const;
  std::string text_of(std::int64_t tiles) const;
  void check_token() const;

  InternVlParts parts_;
  MediaMarks places_;
  std::vector<std::int64_t> media_ids_;
};

}  // namespace vlm
