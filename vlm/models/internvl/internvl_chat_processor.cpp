#include "vlm/models/internvl/internvl_chat_processor.h"

#include <ATen/ops/cat.h>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/decoder/size_checks.h"
#include "vlm/models/internvl/internvl_conversation.h"
#include "vlm/models/parts/load_config.h"
#include "vlm/text/added_token_files.h"

namespace vlm {
namespace {

constexpr std::int64_t kExampleFrames = 8;  // of the published examples

InternVlParts load_chat_parts(const std::filesystem::path& folder, const TemplateOptions& options) {
  const InternVlChatConfig config = load_chat_config(folder);
  InternVlConversation conversation =
      make_conversation(config.conversation, config.system_message,
                        (folder / "config.json").string() + ": template", options);
  return {.folder = folder.string(),
          .config = config.model,
          .tokenizer = load_tokenizer(folder),
          .chat_template = std::move(conversation.chat_template),
          .turn_end = conversation.end,
          .pictures = InternVlPictures(config.tiles),
          .frames = std::nullopt,
          .tokens = {},
          .tile_tokens = config.tile_tokens(),
          .adds_special_tokens = true,
          .id_place = "tokenizer_config.json or added_tokens.json"};
}

std::int64_t find_token(const std::filesystem::path& folder, const std::string& content,
                        const std::string& use) {
  if (const auto id = find_added_token(folder, content)) return *id;
  throw Error({.what = concat("the tokenizer has no token ", use),
               .where = folder.string(),
               .wanted = concat(content,
                                " in tokenizer_config.json's added_tokens_decoder, "
                                "added_tokens.json or tokenizer.json")});
}

}  // namespace

InternVlChatProcessor::InternVlChatProcessor(const std::filesystem::path& folder,
                                             const TemplateOptions& options)
    : InternVlProcessor(load_chat_parts(folder, options)),
      sampling_({.rule = FrameSampling::Rule::kSegments,
                 .max_frames = kExampleFrames,
                 .skip_s = 0,
                 .min_frames = kExampleFrames}) {}

Pixels InternVlChatProcessor::process_frames(const std::vector<Image>& frames, std::int64_t,
                                             const PictureChange& change) const {
  std::vector<at::Tensor> tiles;
  for (const Image& frame : frames) {
    tiles.push_back(parts().pictures.process(frame, /*is_whole=*/true, change));
  }
  return to_pixels(at::cat(tiles));
}

std::vector<Message> InternVlChatProcessor::with_places(
    const std::vector<Message>& messages) const {
  return name_media(messages, parts().tokens.picture, parts().tokens.video);
}

EncodedConversation InternVlChatProcessor::encode_prompt(const std::vector<Message>& messages,
                                                         const ProcessedMedia& media) const {
  return InternVlProcessor::encode_prompt(with_places(messages), media);
}

EncodedConversation InternVlChatProcessor::encode_conversation(const std::vector<Message>& messages,
                                                               const ProcessedMedia& media,
                                                               const LossTurns& turns) const {
  return InternVlProcessor::encode_conversation(with_places(messages), media, turns);
}

InternVlChatConfig load_chat_config(const std::filesystem::path& folder) {
  auto config = load_config<InternVlChatConfig>(folder);
  const std::int64_t vocab_size = config.model.text_config.vocab_size;
  const std::int64_t id = find_token(folder, InternVlTokens().picture, "for pictures");
  require(id < vocab_size, (folder / "config.json").string() + ": llm_config: vocab_size",
          "the tokenizer's token for pictures isn't in the vocabulary", vocab_size,
          concat("more than its id, ", id));
  config.model.image_token_id = id;
  return config;
}

std::vector<std::int64_t> find_answer_end(const std::filesystem::path& folder) {
  const auto config = load_config<InternVlChatConfig>(folder);
  const auto conversation = make_conversation(config.conversation, {},
                                              (folder / "config.json").string() + ": template", {});
  return {find_token(folder, conversation.end, "that ends a turn")};
}

}  // namespace vlm
