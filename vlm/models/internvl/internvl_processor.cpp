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

void check_tiles(const InternVlParts& parts) {
  const std::int64_t pixels = parts.config.vision_config.patch_size * parts.config.scale;
  for (const InternVlTileConfig* tiles : {&parts.pictures.config(), &parts.frames->config()}) {
    const std::int64_t cells = tiles->side / pixels;
    if (tiles->side % pixels == 0 && cells * cells == parts.tile_tokens) continue;
    throw Error({.what = "the processor's tiles don't fit its tokens",
                 .where = parts.folder,
                 .got = concat("size ", tiles->side, ", image_seq_length ", parts.tile_tokens),
                 .wanted = concat("(size / ", pixels, ")² = image_seq_length")});
  }
}

InternVlParts load_parts(const std::filesystem::path& folder, const TemplateOptions& options) {
  InternVlParts parts{.folder = folder.string(),
                      .config = load_config<InternVlConfig>(folder),
                      .tokenizer = load_tokenizer(folder),
                      .chat_template = load_chat_template(folder, options),
                      .turn_end = kInternVlTurnEnd,
                      .pictures = InternVlPictures(folder),
                      .frames = InternVlFrames(folder),
                      .tokens = InternVlTokens::load(folder),
                      .tile_tokens = load_tile_tokens(folder),
                      .adds_special_tokens = false,
                      .id_place = "config.json"};
  check_tiles(parts);
  return parts;
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
    : InternVlProcessor(load_parts(folder, options)) {}

InternVlProcessor::InternVlProcessor(InternVlParts parts)
    : parts_(std::move(parts)),
      places_({.picture = parts_.tokens.picture,
               .video = parts_.tokens.video,
               .picture_mark = parts_.tokens.picture,
               .video_mark = parts_.tokens.picture}),
      media_ids_({parts_.config.image_token_id}) {
  check_token();
}

void InternVlProcessor::check_token() const {
  const std::vector<std::int64_t> ids = parts_.tokenizer->encode(parts_.tokens.picture);
  if (ids == media_ids_) return;
  throw Error({.what = "the tokenizer's token for pictures isn't the model's",
               .where = parts_.folder,
               .got = concat(parts_.tokens.picture, ", id ", ids.size() == 1 ? ids[0] : -1),
               .wanted = concat("image_token_id = ", parts_.config.image_token_id, " as in ",
                                parts_.id_place)});
}

std::string InternVlProcessor::text_of(std::int64_t tiles) const {
  std::string text = parts_.tokens.begin;
  for (std::int64_t i = 0; i < tiles * parts_.tile_tokens; ++i) text += parts_.tokens.picture;
  return text + parts_.tokens.end;
}

Pixels InternVlProcessor::to_pixels(const at::Tensor& tiles) const {
  return {.values = tiles, .tokens = tiles.size(0) * parts_.tile_tokens};
}

ProcessedMedium InternVlProcessor::process_picture(const Image& image, bool is_whole,
                                                   const PictureChange& change) const {
  return {to_pixels(parts_.pictures.process(image, is_whole, change)),
          picture_text(image.height, image.width, is_whole)};
}

MediumText InternVlProcessor::picture_text(std::int64_t height, std::int64_t width,
                                           bool is_whole) const {
  const TileGrid grid = parts_.pictures.grid_of({height, width}, is_whole);
  const bool is_split = grid.tiles() > 1;
  const std::int64_t tiles = parts_.pictures.count_tiles(grid);
  return {.kind = MediumText::Kind::kPicture,
          .text = text_of(tiles),
          .rows = is_split ? grid.rows : 0,
          .cols = is_split ? grid.cols : 0,
          .tokens = tiles * parts_.tile_tokens,
          .units = tiles};
}

Pixels InternVlProcessor::process_frames(const std::vector<Image>& frames, std::int64_t,
                                         const PictureChange& change) const {
  return to_pixels(parts_.frames->process(frames, change));
}

MediumText InternVlProcessor::video_text(const ClipShape& clip) const {
  const std::int64_t frames = std::ssize(clip.times_s);
  MediumText text{
      .kind = MediumText::Kind::kVideo, .tokens = frames * parts_.tile_tokens, .units = frames};
  for (std::int64_t i = 1; i <= frames; ++i) {
    text.text += concat(i == 1 ? "Frame" : "\nFrame", i, ": ", text_of(1));
  }
  return text;
}

ConversationCodec InternVlProcessor::codec() const {
  return {.tokenizer = *parts_.tokenizer,
          .places = places_,
          .media_ids = media_ids_,
          .vocab_size = parts_.config.text_config.vocab_size,
          .adds_special_tokens = parts_.adds_special_tokens,
          .where = parts_.folder};
}

EncodedConversation InternVlProcessor::encode_prompt(const std::vector<Message>& messages,
                                                     const ProcessedMedia& media) const {
  return encode_expanded(codec(), parts_.chat_template.render(messages, true), media);
}

EncodedConversation InternVlProcessor::encode_conversation(const std::vector<Message>& messages,
                                                           const ProcessedMedia& media,
                                                           const LossTurns& turns) const {
  return encode_turns(
      codec(), split_turns(parts_.chat_template, messages, turns, parts_.turn_end, parts_.folder),
      media);
}

}  // namespace vlm
