// The processor of language models without pictures: conversations and plain text → ids.
//
// A model with a chat template gets its conversations as the template writes them; messages are
// plain strings there. A base model, which has none, gets the texts of the messages one after the
// other, with the tokens that its tokenizer puts around a text (a BOS, say), and learns an end
// token behind each answer. Reference: apply_chat_template, and the tokenizer called with a text,
// transformers 5.23.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "vlm/models/interface/processor.h"

namespace vlm {

class TextProcessor : public Processor {
 public:
  // Reads tokenizer, chat template and, for the model's positions, config.json of a checkpoint
  // folder.
  explicit TextProcessor(const std::filesystem::path& folder, const TemplateOptions& options = {});

  using Processor::encode_conversation;
  using Processor::encode_prompt;
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override;
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::int64_t max_positions() const override { return max_positions_; }
  bool takes_media() const override { return false; }

  // Of pictures and clips: each throws Error naming the model.
  ProcessedMedium process_picture(const Image& image, bool is_whole,
                                  const PictureChange& change) const override;
  MediumText picture_text(std::int64_t height, std::int64_t width, bool is_whole) const override;
  Pixels process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                        const PictureChange& change) const override;
  MediumText video_text(const ClipShape& clip) const override;
  std::string frame_settings() const override { return ""; }
  const FrameSampling& frame_sampling() const override { return sampling_; }
  std::string picture_settings() const override { return ""; }

  // The prompt string. For tests and inspection.
  std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const;

 private:
  std::vector<Message> to_plain(const std::vector<Message>& messages) const;
  std::string find_end_mark() const;
  [[noreturn]] void refuse_media() const;

  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  bool is_base_;
  ChatTemplate chat_template_;
  std::string end_mark_;  // closes an assistant's turn; empty: nothing does
  FrameSampling sampling_;
  std::int64_t max_positions_;
};

}  // namespace vlm
