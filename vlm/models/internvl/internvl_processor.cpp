#include "vlm/models/internvl/internvl_processor.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/parts/load_config.h"

namespace vlm {
namespace {

constexpr const char* kInternVlTurnEnd = "<|im_end|>";

std::int64_t load_tile_tokens(const std::filesystem::path& folder) {
  std::int64_t tokens = 256;  // the class's default
  const auto path = folder / "processor_config.json";
  if (std::filesystem::exists(path)) {
    read_fields(load_json(path), {{"image_seq_length", &tokens}}, UnknownKeys::kIgnore,
                path.string());
  }
  return tokens;
}

}  // namespace

// The names stand at the root, or in extra_special_tokens.
InternVlTokens InternVlTokens::load(const std::filesystem::path& folder) {
  InternVlTokens tokens;
  const auto path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return tokens;
  const Json json = load_json(path);
  const auto read = [&](const Json& object) {
    read_fields(object,
                {{"start_image_token", &tokens.begin},
                 {"end_image_token", &tokens.end},
                 {"context_image_token", &tokens.picture},
                 {"video_token", &tokens.video}},
                UnknownKeys::kIgnore, path.string());
  };
  const auto extra = json.find("extra_special_tokens");
  if (extra != json.end() && extra->is_object()) read(*extra);
  read(json);
  return tokens;
}

InternVlProcessor::InternVlProcessor(const std::filesystem::path& folder,
                                     const TemplateOptions& options)
    : folder_(folder.string()),
      config_(load_config<InternVlConfig>(folder)),
      tokenizer_(load_tokenizer(folder)),
      chat_template_(load_chat_template(folder, options)),
      pictures_(folder),
      frames_(folder),
      tokens_(InternVlTokens::load(folder)),
      places_({.picture = tokens_.picture,
               .video = tokens_.video,
               .picture_mark = tokens_.picture,
               .video_mark = tokens_.picture}),
      media_ids_({config_.image_token_id}),
      tile_tokens_(load_tile_tokens(folder)) {
  check_tokens();
}

void InternVlProcessor::check_tokens() const {
  const std::int64_t pixels = config_.vision_config.patch_size * config_.scale;
  for (const InternVlTileConfig* tiles : {&pictures_.config(), &frames_.config()}) {
    const std::int64_t cells = tiles->side / pixels;
    if (tiles->side % pixels == 0 && cells * cells == tile_tokens_) continue;
    throw Error({.what = "the processor's tiles don't fit its tokens",
                 .where = folder_,
                 .got = concat("size ", tiles->side, ", image_seq_length ", tile_tokens_),
                 .wanted = concat("(size / ", pixels, ")² = image_seq_length")});
  }
  const std::vector<std::int64_t> ids = tokenizer_->encode(tokens_.picture);
  if (ids == media_ids_) return;
  throw Error(
      {.what = "the tokenizer's token for pictures isn't the model's",
       .where = folder_,
       .got = concat(tokens_.picture, ", id ", ids.size() == 1 ? ids[0] : -1),
       .wanted = concat("image_token_id = ", config_.image_token_id, " as in config.json")});
}

std::string InternVlProcessor::text_of(std::int64_t tiles) const {
  std::string text = tokens_.begin;
  for (std::int64_t i = 0; i < tiles * tile_tokens_; ++i) text += tokens_.picture;
  return text + tokens_.end;
}

Pixels InternVlProcessor::to_pixels(const at::Tensor& tiles) const {
  return {.values = tiles, .tokens = tiles.size(0) * tile_tokens_};
}

ProcessedMedium InternVlProcessor::process_picture(const Image& image, bool is_whole,
                                                   const PictureChange& change) const {
  return {to_pixels(pictures_.process(image, is_whole, change)),
          picture_text(image.height, image.width, is_whole)};
}

MediumText InternVlProcessor::picture_text(std::int64_t height, std::int64_t width,
                                           bool is_whole) const {
  const TileGrid grid = pictures_.grid_of({height, width}, is_whole);
  const bool is_split = grid.tiles() > 1;
  const std::int64_t tiles = grid.tiles() + (is_split ? 1 : 0);
  return {.kind = MediumText::Kind::kPicture,
          .text = text_of(tiles),
          .rows = is_split ? grid.rows : 0,
          .cols = is_split ? grid.cols : 0,
          .tokens = tiles * tile_tokens_,
          .units = tiles};
}

Pixels InternVlProcessor::process_frames(const std::vector<Image>& frames, std::int64_t,
                                         const PictureChange& change) const {
  return to_pixels(frames_.process(frames, change));
}

MediumText InternVlProcessor::video_text(const ClipShape& clip) const {
  const std::int64_t frames = std::ssize(clip.times_s);
  MediumText text{
      .kind = MediumText::Kind::kVideo, .tokens = frames * tile_tokens_, .units = frames};
  for (std::int64_t i = 1; i <= frames; ++i) {
    text.text += concat(i == 1 ? "Frame" : "\nFrame", i, ": ", text_of(1));
  }
  return text;
}

ConversationCodec InternVlProcessor::codec() const {
  return {.tokenizer = *tokenizer_,
          .places = places_,
          .media_ids = media_ids_,
          .vocab_size = config_.text_config.vocab_size,
          .where = folder_};
}

EncodedConversation InternVlProcessor::encode_prompt(const std::vector<Message>& messages,
                                                     const ProcessedMedia& media) const {
  return encode_expanded(codec(), chat_template_.render(messages, true), media);
}

EncodedConversation InternVlProcessor::encode_conversation(const std::vector<Message>& messages,
                                                           const ProcessedMedia& media,
                                                           const LossTurns& turns) const {
  return encode_turns(
      codec(), split_turns(chat_template_, messages, turns, kInternVlTurnEnd, folder_), media);
}

}  // namespace vlm
