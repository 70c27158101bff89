// The processor of SmolVLM2, the first SmolVLM and Idefics3: expands each picture to its tokens in
// the prompt.
//
// A picture that was split becomes rows of "<fake><row_r_col_c><image>…" and the global image at
// the end, one that was not "<fake><global-img><image>…<fake>". Reference: SmolVLMProcessor,
// transformers 5.23.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "vlm/image/image_processor.h"
#include "vlm/models/processor.h"

namespace vlm {

class SmolVlmProcessor : public Processor {
 public:
  // Reads tokenizer, chat template, preprocessor_config.json and processor_config.json of a
  // checkpoint folder.
  explicit SmolVlmProcessor(const std::filesystem::path& folder);

  using Processor::encode_prompt;
  ProcessedPictures process_pictures(const std::vector<Image>& images) const override;
  std::vector<std::string> picture_texts(const std::vector<PixelSize>& sizes) const override;
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedPictures& pictures) const override;
  using Processor::encode_conversation;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedPictures& pictures) const override;
  std::string picture_settings() const override;
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::int64_t tokens_per_tile() const override { return image_seq_len_; }

  // The prompt string with every picture's tokens spelled out. For tests and inspection.
  std::string expand_prompt(const std::vector<Message>& messages, const std::vector<Image>& images,
                            bool add_generation_prompt) const;

 private:
  struct Expansion;

  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ChatTemplate chat_template_;
  ImageProcessor image_processor_;
  std::int64_t image_seq_len_;
};

// The text of one picture of rows × cols tiles (0 × 0: not split), each of image_seq_len tokens.
std::string image_prompt(std::int64_t rows, std::int64_t cols, std::int64_t image_seq_len);

}  // namespace vlm
