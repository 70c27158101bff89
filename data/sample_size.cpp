#include "data/sample_size.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <numeric>
#include <thread>

#include "data/media_texts.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

class Measurer {
 public:
  Measurer(const Dataset& dataset, const Processor& processor)
      : dataset_(dataset), processor_(processor), texts_(processor, {}) {}

  SampleSize measure(std::int64_t index) {
    const Sample sample = dataset_.at(index);
    try {
      ProcessedMedia media;
      SampleSize size;
      for (const MediaRef& medium : sample.media) {
        media.texts.push_back(texts_.text_of(medium));
        size.tiles += texts_.count_tiles(media.texts.back());
      }
      const EncodedConversation encoded = processor_.encode_conversation(sample.messages, media);
      size.tokens = static_cast<std::int64_t>(encoded.ids.size());
      size.labels = std::count(encoded.is_trained.begin(), encoded.is_trained.end(), true);
      return size;
    } catch (const Error& error) {
      throw located(error, sample.where);
    }
  }

 private:
  const Dataset& dataset_;
  const Processor& processor_;
  MediaTexts texts_;
};

}  // namespace

std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        std::int64_t threads,
                                        const std::vector<std::int64_t>& indices) {
  Measurer measurer(dataset, processor);
  std::vector<SampleSize> sizes(indices.size());
  std::vector<std::exception_ptr> failures(indices.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < indices.size(); i = next++) {
      try {
        sizes[i] = measurer.measure(indices[i]);
      } catch (...) {
        failures[i] = std::current_exception();
        next = indices.size();
      }
    }
  };
  std::vector<std::thread> workers;
  for (std::int64_t i = 1; i < threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return sizes;
}

std::vector<SampleSize> measure_samples(const Dataset& dataset, const Processor& processor,
                                        std::int64_t threads) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(dataset.size()));
  std::iota(indices.begin(), indices.end(), 0);
  return measure_samples(dataset, processor, threads, indices);
}

}  // namespace vlm::data
