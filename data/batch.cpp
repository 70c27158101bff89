#include "data/batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <algorithm>

#include "data/media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

void check_example(const Example& example, const Sample& sample, std::int64_t max_length) {
  const auto length = static_cast<std::int64_t>(example.ids.size());
  if (max_length > 0 && length > max_length) {
    throw Error({.what = "sample is too long",
                 .where = sample.where,
                 .got = concat(length, " tokens"),
                 .wanted = concat("at most max_length = ", max_length)});
  }
  const bool learns = std::any_of(example.labels.begin(), example.labels.end(),
                                  [](std::int64_t label) { return label != kIgnoredLabel; });
  if (!learns) {
    throw Error({.what = "sample has nothing to learn",
                 .where = sample.where,
                 .wanted = "at least one assistant turn"});
  }
}

// The media parts of a conversation, in order; true where it is a clip.
std::vector<bool> find_videos(const std::vector<Message>& messages) {
  std::vector<bool> is_video;
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.type != "text") is_video.push_back(part.type == "video");
    }
  }
  return is_video;
}

// What opening one sample's media needs.
struct MediaLoader {
  const Processor& processor;
  const EncodeOptions& options;

  Image changed(Image image, std::uint64_t seed) const {
    if (options.augmentation.is_off()) return image;
    return augment(image, options.augmentation, seed);
  }

  ProcessedMedium load_picture(const std::filesystem::path& path, std::uint64_t seed) const {
    return processor.process_picture(changed(load_image(path), seed));
  }

  // Frame by frame: sixty-four frames of a large clip are gigabytes, their tiles are not.
  ProcessedMedium load_video(const std::filesystem::path& path, std::uint64_t seed) const {
    ClipReader reader(path, options.video, processor.frame_sampling());
    std::vector<at::Tensor> tiles;
    std::vector<double> times_s;
    reader.for_each_frame([&](VideoFrame frame) {
      tiles.push_back(processor.process_frames({changed(std::move(frame.image), seed)}));
      times_s.push_back(frame.time_s);
      return true;
    });
    return {at::cat(tiles), processor.video_text(times_s, reader.duration_s())};
  }
};

}  // namespace

Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options) {
  try {
    const MediaLoader loader{processor, options};
    const std::vector<bool> is_video = find_videos(sample.messages);
    std::vector<ProcessedMedium> media;
    for (std::size_t i = 0; i < sample.images.size(); ++i) {
      const bool clip = i < is_video.size() && is_video[i];
      media.push_back(clip ? loader.load_video(sample.images[i], options.seed + i)
                           : loader.load_picture(sample.images[i], options.seed + i));
    }
    EncodedConversation encoded = processor.encode_conversation(sample.messages, join_media(media));
    Example example{.ids = std::move(encoded.ids), .pixel_values = encoded.pixel_values};
    for (std::size_t t = 0; t < example.ids.size(); ++t) {
      example.labels.push_back(encoded.is_trained[t] ? example.ids[t] : kIgnoredLabel);
    }
    check_example(example, sample, options.max_length);
    return example;
  } catch (const Error& error) {
    if (error.parts().where.starts_with(sample.where)) throw;
    throw located(error, sample.where);
  }
}

Batch collate(const std::vector<Example>& examples, std::int64_t pad_id) {
  std::size_t length = 0;
  for (const Example& example : examples) length = std::max(length, example.ids.size());
  const std::vector<std::int64_t> size = {static_cast<std::int64_t>(examples.size()),
                                          static_cast<std::int64_t>(length)};
  Batch batch;
  batch.inputs.input_ids = at::full(size, pad_id, at::kLong);
  batch.labels = at::full(size, kIgnoredLabel, at::kLong);
  std::vector<at::Tensor> tiles;
  for (std::size_t b = 0; b < examples.size(); ++b) {
    const Example& example = examples[b];
    std::int64_t* ids = batch.inputs.input_ids.data_ptr<std::int64_t>() + b * length;
    std::int64_t* labels = batch.labels.data_ptr<std::int64_t>() + b * length;
    std::copy(example.ids.begin(), example.ids.end(), ids);
    std::copy(example.labels.begin() + 1, example.labels.end(), labels);  // shifted left by one
    batch.label_count += std::count_if(example.labels.begin() + 1, example.labels.end(),
                                       [](std::int64_t label) { return label != kIgnoredLabel; });
    if (example.pixel_values.defined()) tiles.push_back(example.pixel_values);
  }
  if (!tiles.empty()) batch.inputs.pixel_values = at::cat(tiles);
  return batch;
}

}  // namespace vlm::data
