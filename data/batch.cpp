#include "data/batch.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/sha256.h"
#include "vlm/io/file_digest.h"

namespace vlm::data {
namespace {

// Takes away what stands behind the bound: text, never a part of a picture.
void truncate(Example& example, const Sample& sample, const LengthBound& bound) {
  const auto length = static_cast<std::ptrdiff_t>(bound.tokens);
  if (example.layout.media_end() > length) {
    throw LongSampleError({.what = "sample is too long, and cutting it would cut a picture",
                           .where = sample.where,
                           .got = concat(example.ids.size(), " tokens"),
                           .wanted = concat("pictures within ", bound.key, " = ", bound.tokens)});
  }
  example.cut_tokens = static_cast<std::int64_t>(example.ids.size()) - bound.tokens;
  example.ids.resize(static_cast<std::size_t>(length));
  example.labels.resize(static_cast<std::size_t>(length));
  example.layout.cut(length);
}

void check_length(const Example& example, const Sample& sample, const LengthBound& bound) {
  const auto length = static_cast<std::int64_t>(example.ids.size());
  if (bound.tokens == 0 || length <= bound.tokens) return;
  throw LongSampleError({.what = "sample is too long",
                         .where = sample.where,
                         .got = concat(length, " tokens"),
                         .wanted = concat("at most ", bound.key, " = ", bound.tokens)});
}

// The first token has nothing before it that could predict it.
void check_labels(const Example& example, const Sample& sample, const LengthBound& bound) {
  const auto begin = example.labels.begin() + (example.labels.empty() ? 0 : 1);
  const bool learns = std::any_of(begin, example.labels.end(),
                                  [](std::int64_t label) { return label != kIgnoredLabel; });
  if (learns) return;
  if (example.cut_tokens > 0) {
    throw Error({.what = concat("sample has nothing to learn within ", bound.key),
                 .where = sample.where,
                 .got = concat(example.cut_tokens, " tokens cut off")});
  }
  throw Error({.what = "sample has nothing to learn",
               .where = sample.where,
               .wanted = "at least one assistant turn"});
}

// What opening one sample's media needs.
struct MediaLoader {
  const Processor& processor;
  const EncodeOptions& options;

  PictureChange change(std::uint64_t seed) const {
    if (options.augmentation.is_off()) return {};
    return [&augmentation = options.augmentation, seed](Image image) {
      return augment(std::move(image), augmentation, seed);
    };
  }

  ProcessedMedium load(const MediaRef& medium, std::uint64_t seed) const {
    if (medium.kind == MediaKind::kVideo) return load_video(medium.name, seed);
    return processor.process_picture(load_picture(medium), medium.is_whole, change(seed));
  }

  // Frame by frame: sixty-four frames of a large clip are gigabytes, their tiles are not.
  ProcessedMedium load_video(const std::filesystem::path& path, std::uint64_t seed) const {
    ClipReader reader(path, options.video, processor.frame_sampling());
    std::vector<Pixels> parts;
    ClipShape shape{.chosen_frames = reader.frame_count(), .duration_s = reader.duration_s()};
    const auto process = [&](const std::vector<Image>& frames) {
      parts.push_back(processor.process_frames(frames, shape.chosen_frames, change(seed)));
      shape.height = frames[0].height;
      shape.width = frames[0].width;
      return true;
    };
    reader.for_each_group(processor.frames_at_once(), shape.times_s, process);
    return {join_pixels(parts), processor.video_text(shape)};
  }

  // Of the files' content, in their order, and of what else clips' frames depend on. Empty where
  // that can't be told: without pictures, and for clips from pipes.
  std::string content_key(const Sample& sample) const {
    std::string digests;
    for (const MediaRef& medium : sample.media) {
      const bool is_video = medium.kind == MediaKind::kVideo;
      const std::string digest =
          is_video ? video_digest(medium.name) : sha256_hex(read_bytes(medium));
      if (digest.empty()) return "";
      digests += digest;
      if (medium.is_whole) digests += " whole";
    }
    return digests.empty() ? "" : sha256_hex(digests);
  }

  std::string video_digest(const std::filesystem::path& path) const {
    const std::string content = digest_file(path);
    if (content.empty()) return "";
    const FrameSampling& defaults = processor.frame_sampling();
    return concat(" video ", content, " ", describe_sampling(options.video, defaults).dump(), " ",
                  processor.frame_settings());
  }

  SamplePictures open(const Sample& sample) const {
    SamplePictures pictures;
    if (options.lookup && options.augmentation.is_off()) {
      pictures.key = content_key(sample);
      auto known = pictures.key.empty() ? std::nullopt : options.lookup->find(pictures.key);
      if (known) {
        pictures.texts = std::move(known->texts);
        pictures.features = known->features;
        return pictures;
      }
    }
    std::vector<ProcessedMedium> media;
    for (std::size_t i = 0; i < sample.media.size(); ++i) {
      media.push_back(load(sample.media[i], options.seed + i));
    }
    ProcessedMedia joined = join_media(media);
    pictures.texts = std::move(joined.texts);
    pictures.pixels = std::move(joined.pixels);
    return pictures;
  }
};

}  // namespace

std::int64_t SamplePictures::units() const {
  if (!features.defined()) return pixels.units();
  std::int64_t sum = 0;
  for (const MediumText& text : texts) sum += text.units;
  return sum;
}

double Batch::padding() const {
  return 1 - static_cast<double>(token_count) / static_cast<double>(labels.numel());
}

void add_pictures(const SamplePictures& pictures, Batch& batch) {
  if (pictures.empty()) return;
  std::size_t place = 0;
  while (place < batch.pictures.size() &&
         (pictures.key.empty() || batch.pictures[place].key != pictures.key)) {
    ++place;
  }
  if (place == batch.pictures.size()) batch.pictures.push_back(pictures);
  batch.picture_order.push_back(static_cast<std::int64_t>(place));
}

Example make_example(EncodedConversation encoded, const Sample& sample,
                     const EncodeOptions& options, std::int64_t max_positions) {
  const LengthBound bound = options.bound(max_positions);
  Example example{.ids = std::move(encoded.ids), .layout = std::move(encoded.layout)};
  for (std::size_t t = 0; t < example.ids.size(); ++t) {
    example.labels.push_back(encoded.is_trained[t] ? example.ids[t] : kIgnoredLabel);
  }
  const auto length = static_cast<std::int64_t>(example.ids.size());
  const bool is_long = bound.tokens > 0 && length > bound.tokens;
  if (is_long && options.length_policy == LengthPolicy::kTruncate) {
    truncate(example, sample, bound);
  }
  check_length(example, sample, bound);
  check_labels(example, sample, bound);
  return example;
}

Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options) {
  try {
    SamplePictures pictures = MediaLoader{processor, options}.open(sample);
    Example example =
        make_example(processor.encode_conversation(sample.messages, {.texts = pictures.texts},
                                                   find_loss_turns(sample, options.train_on)),
                     sample, options, processor.max_positions());
    example.pictures = std::move(pictures);
    return example;
  } catch (const Error& error) {
    if (error.parts().where.starts_with(sample.where)) throw;
    throw located(error, sample.where);
  }
}

std::optional<Example> try_example(const Dataset& dataset, std::int64_t index,
                                   const Processor& processor, const EncodeOptions& options,
                                   SkippedSamples& skipped) {
  const std::string where = dataset.where(index);
  if (skipped.contains(where)) return std::nullopt;
  try {
    return encode_example(dataset.at(index), processor, options);
  } catch (const LongSampleError& error) {
    if (options.length_policy == LengthPolicy::kSkip) {
      skipped.add_long(where, error);
    } else {
      skipped.add_bad(where, error);
    }
  } catch (const Error& error) {
    skipped.add_bad(where, error);
  }
  return std::nullopt;
}

Example read_example(const Dataset& dataset, std::int64_t index, const Processor& processor,
                     const EncodeOptions& options, SkippedSamples& skipped) {
  for (std::int64_t tried = 0; tried < dataset.size(); ++tried) {
    const std::int64_t at = (index + tried) % dataset.size();
    auto example = try_example(dataset, at, processor, options, skipped);
    if (example) return std::move(*example);
  }
  throw Error({.what = "every sample of the data is skipped",
               .got = concat(skipped.bad_count(), " bad, ", skipped.long_count(), " too long")});
}

Batch collate(const std::vector<Example>& examples, std::int64_t pad_id) {
  std::size_t length = 0;
  for (const Example& example : examples) length = std::max(length, example.ids.size());
  const std::vector<std::int64_t> size = {static_cast<std::int64_t>(examples.size()),
                                          static_cast<std::int64_t>(length)};
  Batch batch;
  batch.inputs.input_ids = at::full(size, pad_id, at::kLong);
  batch.labels = at::full(size, kIgnoredLabel, at::kLong);
  std::vector<RowPositions> positions;
  for (std::size_t b = 0; b < examples.size(); ++b) {
    const Example& example = examples[b];
    positions.push_back({example.layout.positions, std::ssize(example.ids)});
    std::int64_t* ids = batch.inputs.input_ids.data_ptr<std::int64_t>() + b * length;
    std::int64_t* labels = batch.labels.data_ptr<std::int64_t>() + b * length;
    std::copy(example.ids.begin(), example.ids.end(), ids);
    std::copy(example.labels.begin() + 1, example.labels.end(), labels);  // shifted left by one
    batch.label_count += std::count_if(example.labels.begin() + 1, example.labels.end(),
                                       [](std::int64_t label) { return label != kIgnoredLabel; });
    batch.token_count += static_cast<std::int64_t>(example.ids.size());
    add_pictures(example.pictures, batch);
  }
  batch.inputs.positions = stack_positions(positions);
  return batch;
}

}  // namespace vlm::data
