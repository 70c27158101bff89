#include "data/sample_size.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <optional>
#include <utility>

#include "data/batch.h"
#include "data/media/media_texts.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/ordered_workers.h"

namespace vlm::data {
namespace {

constexpr std::int64_t kAheadAThread = 16;  // samples: they take unequal times

// A size, or why there is none.
struct Measured {
  std::optional<SampleSize> size;
  std::exception_ptr failure;
};

class Measurer {
 public:
  Measurer(const Dataset& dataset, const Processor& processor, const MeasureOptions& options)
      : dataset_(dataset),
        processor_(processor),
        options_(options),
        texts_(processor, options.encode.video) {}

  // Neither for a sample that training would pass over. Any thread may ask.
  Measured measure(std::int64_t index) {
    try {
      const Sample sample = dataset_.at(index);
      try {
        return {.size = measure(sample)};
      } catch (const Error& error) {
        if (error.parts().where.starts_with(sample.where)) throw;
        throw located(error, sample.where);
      }
    } catch (const LongSampleError&) {
      if (options_.encode.length_policy == LengthPolicy::kSkip) return {};
      return {.failure = std::current_exception()};
    } catch (const Error&) {
      return {.failure = std::current_exception()};
    }
  }

 private:
  SampleSize measure(const Sample& sample) {
    ProcessedMedia media;
    SampleSize size;
    for (const MediaRef& medium : sample.media) {
      media.texts.push_back(texts_.text_of(medium));
      size.tiles += media.texts.back().units;
      size.picture_tokens += media.texts.back().tokens;
    }
    const Example example =
        make_example(processor_.encode_conversation(
                         sample.messages, media, find_loss_turns(sample, options_.encode.train_on)),
                     sample, options_.encode, processor_.max_positions());
    size.tokens = static_cast<std::int64_t>(example.ids.size());
    size.labels = std::count_if(example.labels.begin(), example.labels.end(),
                                [](std::int64_t label) { return label != kIgnoredLabel; });
    return size;
  }

  const Dataset& dataset_;
  const Processor& processor_;
  const MeasureOptions& options_;
  MediaTexts texts_;
};

// Each gap takes the size that follows it, the last ones the first.
std::vector<SampleSize> fill_gaps(const std::vector<std::optional<SampleSize>>& found) {
  std::vector<SampleSize> sizes(found.size());
  SampleSize next;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = found.size(); i-- > 0;) {
      if (found[i]) next = *found[i];
      sizes[i] = next;
    }
  }
  return sizes;
}

}  // namespace

std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options,
                                        const std::vector<std::int64_t>& indices) {
  Measurer measurer(dataset, processor, options);
  std::vector<std::optional<SampleSize>> found;
  found.reserve(indices.size());
  std::exception_ptr first_failure;
  std::int64_t failures = 0;
  OrderedWorkers<std::int64_t, Measured> workers(
      {.name = "vlm sizes", .workers = options.threads, .ahead = kAheadAThread * options.threads},
      {.open = [&, next = std::size_t{0}]() mutable -> std::optional<std::int64_t> {
         if (next == indices.size()) return std::nullopt;
         return indices[next++];
       },
       .make = [&](std::int64_t index, auto& output) { output.put(measurer.measure(index)); }});
  while (std::optional<Measured> measured = workers.next()) {
    throw_if_stopped();
    found.push_back(measured->size);
    if (!measured->failure) continue;
    if (!first_failure) first_failure = measured->failure;
    if (++failures > options.max_bad_samples) std::rethrow_exception(first_failure);
  }
  return fill_gaps(found);
}

std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(dataset.size()));
  std::iota(indices.begin(), indices.end(), 0);
  return measure_samples(dataset, processor, options, indices);
}

}  // namespace vlm::data
