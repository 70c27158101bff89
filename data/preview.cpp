#include "data/preview.h"

#include <algorithm>

#include "vlm/core/error.h"

namespace vlm::data {
namespace {

bool learns_anything(const EncodedConversation& encoded) {
  const auto& trained = encoded.is_trained;
  return trained.size() > 1 && std::find(trained.begin() + 1, trained.end(), true) != trained.end();
}

void encode(Preview& preview, const Processor& processor, const EncodeOptions& options,
            MediaTexts& texts) {
  for (const MediaRef& medium : preview.sample.media) {
    preview.texts.push_back(texts.text_of(medium));
    preview.tiles += preview.texts.back().units;
  }
  preview.encoded =
      processor.encode_conversation(preview.sample.messages, {.texts = preview.texts},
                                    find_loss_turns(preview.sample, options.train_on));
  preview.example =
      make_example(preview.encoded, preview.sample, options, processor.max_positions());
}

}  // namespace

std::int64_t Preview::cut_labels() const {
  if (example.ids.empty()) return 0;
  const auto kept = static_cast<std::ptrdiff_t>(example.ids.size());
  return std::count(encoded.is_trained.begin() + kept, encoded.is_trained.end(), true);
}

std::int64_t Preview::labels() const {
  if (example.labels.empty()) return 0;
  return static_cast<std::int64_t>(example.labels.size()) - 1 -
         std::count(example.labels.begin() + 1, example.labels.end(), kIgnoredLabel);
}

Preview preview_sample(const Dataset& dataset, std::int64_t index, const Processor& processor,
                       const EncodeOptions& options, MediaTexts& texts) {
  Preview preview;
  const std::string where = dataset.where(index);
  try {
    preview.sample.where = where;
    preview.sample = dataset.at(index);
    encode(preview, processor, options, texts);
  } catch (const LongSampleError& error) {
    preview.problem = Preview::Problem::kTooLong;
    preview.reason = error.what();
  } catch (const Error& error) {
    const bool is_encoded = !preview.encoded.ids.empty();
    preview.problem = is_encoded && !learns_anything(preview.encoded)
                          ? Preview::Problem::kNothingLearned
                          : Preview::Problem::kBad;
    const bool is_placed = error.parts().where.starts_with(where);
    preview.reason = is_placed ? error.what() : located(error, where).what();
  }
  return preview;
}

}  // namespace vlm::data
