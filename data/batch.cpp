#include "data/batch.h"

#include <ATen/ops/full.h>

#include <algorithm>

#include "data/media.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/sha256.h"

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

// Of the files' bytes, in their order; empty without pictures.
std::string content_key(const Sample& sample) {
  if (sample.images.empty()) return "";
  std::string digests;
  for (const auto& path : sample.images) {
    digests += sha256_hex(load_text(path, static_cast<std::size_t>(MediaLimits().max_bytes)));
  }
  return sha256_hex(digests);
}

SamplePictures open_pictures(const Sample& sample, const Processor& processor,
                             const EncodeOptions& options) {
  SamplePictures pictures;
  if (options.lookup && options.augmentation.is_off()) {
    pictures.key = content_key(sample);
    if (auto known = options.lookup->find(pictures.key)) {
      pictures.texts = std::move(known->texts);
      pictures.features = known->features;
      return pictures;
    }
  }
  std::vector<Image> images;
  for (std::size_t i = 0; i < sample.images.size(); ++i) {
    Image image = load_image(sample.images[i]);
    if (!options.augmentation.is_off()) {
      image = augment(image, options.augmentation, options.seed + i);
    }
    images.push_back(std::move(image));
  }
  ProcessedPictures processed = processor.process_pictures(images);
  pictures.texts = std::move(processed.texts);
  pictures.pixel_values = processed.pixel_values;
  return pictures;
}

}  // namespace

std::int64_t SamplePictures::tiles() const {
  if (features.defined()) return features.size(0);
  return pixel_values.defined() ? pixel_values.size(0) : 0;
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

Example encode_example(const Sample& sample, const Processor& processor,
                       const EncodeOptions& options) {
  try {
    Example example{.pictures = open_pictures(sample, processor, options)};
    const SamplePictures& pictures = example.pictures;
    EncodedConversation encoded = processor.encode_conversation(
        sample.messages, {.pixel_values = pictures.pixel_values, .texts = pictures.texts});
    example.ids = std::move(encoded.ids);
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
  for (std::size_t b = 0; b < examples.size(); ++b) {
    const Example& example = examples[b];
    std::int64_t* ids = batch.inputs.input_ids.data_ptr<std::int64_t>() + b * length;
    std::int64_t* labels = batch.labels.data_ptr<std::int64_t>() + b * length;
    std::copy(example.ids.begin(), example.ids.end(), ids);
    std::copy(example.labels.begin() + 1, example.labels.end(), labels);  // shifted left by one
    batch.label_count += std::count_if(example.labels.begin() + 1, example.labels.end(),
                                       [](std::int64_t label) { return label != kIgnoredLabel; });
    batch.token_count += static_cast<std::int64_t>(example.ids.size());
    add_pictures(example.pictures, batch);
  }
  return batch;
}

}  // namespace vlm::data
