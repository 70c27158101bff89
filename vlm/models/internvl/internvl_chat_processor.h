// The processor of InternVL in the original layout, whose settings stand in config.json.
//
// Prompts are the vendor's conversations (internvl_conversation.h), with what the tokenizer puts in
// front of a text. Pictures are cut as in the layout of transformers; a frame of a clip is a
// picture of one tile. preprocessor_config.json and the tokenizer's chat_template are not read, as
// the vendor's code doesn't. Reference: chat() and the examples of OpenGVLab/InternVL.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vlm/models/internvl/internvl_chat_config.h"
#include "vlm/models/internvl/internvl_processor.h"

namespace vlm {

class InternVlChatProcessor : public InternVlProcessor {
 public:
  // Reads config.json and the tokenizer of a checkpoint folder.
  explicit InternVlChatProcessor(const std::filesystem::path& folder,
                                 const TemplateOptions& options = {});

  using InternVlProcessor::encode_conversation;
  using InternVlProcessor::encode_prompt;
  Pixels process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                        const PictureChange& change = {}) const override;
  std::string frame_settings() const override { return picture_settings(); }
  const FrameSampling& frame_sampling() const override { return sampling_; }
  EncodedConversation encode_prompt(const std::vector<Message>& messages,
                                    const ProcessedMedia& media) const override;
  EncodedConversation encode_conversation(const std::vector<Message>& messages,
                                          const ProcessedMedia& media,
                                          const LossTurns& turns) const override;

 private:
  std::vector<Message> with_places(const std::vector<Message>& messages) const;

  FrameSampling sampling_;
};

// A folder's config.json with the id of the token for pictures, which its tokenizer files say.
// Throws Error when there is none, or none that the model has an embedding for.
InternVlChatConfig load_chat_config(const std::filesystem::path& folder);

// The id that ends an answer: of the token that ends a turn of the folder's conversation.
std::vector<std::int64_t> find_answer_end(const std::filesystem::path& folder);

}  // namespace vlm
