#include "vlm/models/qwen_vl/qwen_vl_processor.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/models/parts/load_config.h"

namespace vlm {
namespace {

constexpr const char* kPicturePad = "<|image_pad|>";
constexpr const char* kVideoPad = "<|video_pad|>";
constexpr const char* kVisionStart = "<|vision_start|>";
constexpr const char* kVisionEnd = "<|vision_end|>";
constexpr const char* kTurnEnd = "<|im_end|>";

std::string repeated(const char* text, std::int64_t count) {
  std::string all;
  for (std::int64_t i = 0; i < count; ++i) all += text;
  return all;
}

// Rounded to one decimal, as Python's format does it.
std::string seconds_mark(double seconds) {
  return concat("<", fixed_text(seconds, 1), " seconds>");
}

}  // namespace

void place_grids(const std::vector<bool>& is_medium, const std::vector<GridPlace>& grids,
                 PromptLayout& layout) {
  const auto length = std::ssize(is_medium);
  layout.positions = at::empty({3, length}, at::kLong);
  auto* time = layout.positions.mutable_data_ptr<std::int64_t>();
  std::int64_t *row = time + length, *col = row + length;
  std::int64_t next = 0, highest = -1;
  std::size_t used = 0;
  for (std::int64_t t = 0; t < length;) {
    if (!is_medium[static_cast<std::size_t>(t)]) {
      time[t] = row[t] = col[t] = highest = next++;
      ++t;
      continue;
    }
    TORCH_CHECK(used < grids.size(), "more runs of media than grids");
    const auto& [grid, step] = grids[used++];
    TORCH_CHECK(t + grid.patches() <= length, "a grid of more tokens than its run");
    for (std::int64_t frame = 0; frame < grid.frames; ++frame) {
      // In float32, as the reference multiplies.
      const auto later =
          static_cast<std::int64_t>(static_cast<float>(frame) * static_cast<float>(step));
      for (std::int64_t i = 0; i < grid.height * grid.width; ++i, ++t) {
        time[t] = next + later;
        row[t] = next + i / grid.width;
        col[t] = next + i % grid.width;
        highest = std::max({highest, time[t], row[t], col[t]});
      }
    }
    next += std::max(grid.height, grid.width);
  }
  layout.next_position = highest + 1;
}

QwenVlProcessor::QwenVlProcessor(const std::filesystem::path& folder,
                                 const TemplateOptions& options)
    : folder_(folder.string()),
      config_(load_config<QwenVlConfig>(folder)),
      tokenizer_(load_tokenizer(folder)),
      chat_template_(load_chat_template(folder, options)),
      pictures_(folder),
      frames_(folder, config_.generation == QwenGeneration::k3),
      places_({.picture = kPicturePad,
               .video = kVideoPad,
               .picture_mark = kPicturePad,
               .video_mark = kVideoPad}),
      media_ids_({config_.image_token_id, config_.video_token_id}) {
  const QwenVisionConfig& vision = config_.vision_config;
  for (const QwenPixelConfig* pixels : {&pictures_.config(), &frames_.config()}) {
    if (pixels->patch_size == vision.patch_size &&
        pixels->merge_size == vision.spatial_merge_size &&
        pixels->temporal_patch_size == vision.temporal_patch_size) {
      continue;
    }
    throw Error(
        {.what = "the processor's patches aren't those of the model",
         .where = folder_,
         .got = concat("patch_size ", pixels->patch_size, ", merge_size ", pixels->merge_size,
                       ", temporal_patch_size ", pixels->temporal_patch_size),
         .wanted = concat(vision.patch_size, ", ", vision.spatial_merge_size, ", ",
                          vision.temporal_patch_size, " as in config.json")});
  }
}

ProcessedMedium QwenVlProcessor::process_picture(const Image& image, bool,
                                                 const PictureChange& change) const {
  return {pictures_.process(image, change), picture_text(image.height, image.width)};
}

MediumText QwenVlProcessor::picture_text(std::int64_t height, std::int64_t width, bool) const {
  const PatchGrid grid = pictures_.grid_of({height, width});
  const std::int64_t tokens = grid.patches() / config_.vision_config.merged_patches();
  return {.kind = MediumText::Kind::kPicture,
          .text = repeated(kPicturePad, tokens),
          .tokens = tokens,
          .units = grid.patches(),
          .grids = {grid}};
}

Pixels QwenVlProcessor::process_frames(const std::vector<Image>& frames, std::int64_t clip_frames,
                                       const PictureChange& change) const {
  return frames_.process(frames, clip_frames, change);
}

MediumText QwenVlProcessor::video_text(const ClipShape& clip) const {
  const std::int64_t frames = std::ssize(clip.times_s), pair = frames_at_once();
  const PatchGrid grid = frames_.grid_of({clip.height, clip.width}, frames, clip.chosen_frames);
  const std::int64_t merged = config_.vision_config.merged_patches();
  MediumText text{
      .kind = MediumText::Kind::kVideo, .tokens = grid.patches() / merged, .units = grid.patches()};
  if (config_.generation != QwenGeneration::k3) {
    text.text = repeated(kVideoPad, text.tokens);
    text.grids = {grid};
    // Seconds from one pair of frames to the next, as the reference computes them from the rate.
    text.grid_s =
        frames > 0 ? static_cast<double>(pair) * clip.duration_s / static_cast<double>(frames) : 0;
    return text;
  }
  for (std::int64_t t = 0; t < grid.frames; ++t) {
    const auto time = [&](std::int64_t frame) {
      return clip.times_s[static_cast<std::size_t>(std::min(frame, frames - 1))];
    };
    text.text += concat(seconds_mark((time(t * pair) + time(t * pair + pair - 1)) / 2),
                        kVisionStart, repeated(kVideoPad, text.tokens / grid.frames), kVisionEnd);
    text.grids.push_back({.height = grid.height, .width = grid.width});
  }
  return text;
}

ConversationCodec QwenVlProcessor::codec() const {
  return {.tokenizer = *tokenizer_,
          .places = places_,
          .media_ids = media_ids_,
          .vocab_size = config_.text_config.vocab_size,
          .where = folder_};
}

void QwenVlProcessor::add_positions(const ProcessedMedia& media,
                                    EncodedConversation& encoded) const {
  if (media.texts.empty()) return;
  const std::int64_t merge = config_.vision_config.spatial_merge_size;
  std::vector<GridPlace> grids;
  for (const MediumText& text : media.texts) {
    const bool has_seconds =
        config_.generation == QwenGeneration::k25 && text.kind == MediumText::Kind::kVideo;
    for (const PatchGrid& grid : text.grids) {
      grids.push_back({.grid = {grid.frames, grid.height / merge, grid.width / merge}});
      if (has_seconds) {
        grids.back().time_step = config_.vision_config.tokens_per_second * text.grid_s;
      }
    }
  }
  std::vector<bool> is_medium;
  for (const std::int64_t id : encoded.ids) {
    is_medium.push_back(std::ranges::find(media_ids_, id) != media_ids_.end());
  }
  place_grids(is_medium, grids, encoded.layout);
}

EncodedConversation QwenVlProcessor::encode_prompt(const std::vector<Message>& messages,
                                                   const ProcessedMedia& media) const {
  EncodedConversation encoded =
      encode_expanded(codec(), chat_template_.render(messages, true), media);
  add_positions(media, encoded);
  return encoded;
}

EncodedConversation QwenVlProcessor::encode_conversation(const std::vector<Message>& messages,
                                                         const ProcessedMedia& media,
                                                         const LossTurns& turns) const {
  EncodedConversation encoded =
      encode_turns(codec(), split_turns(chat_template_, messages, turns, kTurnEnd, folder_), media);
  add_positions(media, encoded);
  return encoded;
}

}  // namespace vlm
