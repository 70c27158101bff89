#include "data/sample_size.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "data/batch.h"
#include "data/media/media_texts.h"
#include "vlm/core/error.h"
#include "vlm/core/stop_signal.h"

namespace vlm::data {
namespace {

class Measurer {
 public:
  Measurer(const Dataset& dataset, const Processor& processor, const MeasureOptions& options)
      : dataset_(dataset),
        processor_(processor),
        options_(options),
        texts_(processor, options.encode.video) {}

  // Nothing for a sample that training would pass over; of the bad ones among them the first is
  // kept. Any thread may ask.
  std::optional<SampleSize> measure(std::int64_t index) {
    try {
      const Sample sample = dataset_.at(index);
      try {
        return measure(sample);
      } catch (const Error& error) {
        if (error.parts().where.starts_with(sample.where)) throw;
        throw located(error, sample.where);
      }
    } catch (const LongSampleError&) {
      if (options_.encode.length_policy != LengthPolicy::kSkip) take_failure(index);
    } catch (const Error&) {
      take_failure(index);
    }
    return std::nullopt;
  }

  bool has_failed() const { return failures_ > options_.max_bad_samples; }
  void rethrow() const {
    if (has_failed()) std::rethrow_exception(first_);
  }

 private:
  SampleSize measure(const Sample& sample) {
    ProcessedMedia media;
    SampleSize size;
    for (const MediaRef& medium : sample.media) {
      media.texts.push_back(texts_.text_of(medium));
      size.tiles += texts_.count_tiles(media.texts.back());
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

  void take_failure(std::int64_t index) {
    const std::lock_guard lock(mutex_);
    ++failures_;
    if (first_ && index > first_index_) return;
    first_ = std::current_exception();
    first_index_ = index;
  }

  const Dataset& dataset_;
  const Processor& processor_;
  const MeasureOptions& options_;
  MediaTexts texts_;
  std::mutex mutex_;
  std::atomic<std::int64_t> failures_ = 0;
  std::exception_ptr first_;
  std::int64_t first_index_ = 0;
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
  std::vector<std::optional<SampleSize>> found(indices.size());
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(options.threads));
  std::atomic<std::size_t> next{0};
  const auto work = [&](std::exception_ptr& failure) {
    try {
      for (std::size_t i = next++; i < indices.size() && !measurer.has_failed(); i = next++) {
        throw_if_stopped();
        found[i] = measurer.measure(indices[i]);
      }
    } catch (...) {  // no Error: a stop, memory, or a defect
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  for (std::size_t i = 1; i < failures.size(); ++i) {
    workers.emplace_back([&, i] { work(failures[i]); });
  }
  work(failures[0]);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  measurer.rethrow();
  return fill_gaps(found);
}

std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        const MeasureOptions& options) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(dataset.size()));
  std::iota(indices.begin(), indices.end(), 0);
  return measure_samples(dataset, processor, options, indices);
}

}  // namespace vlm::data
