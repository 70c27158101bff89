#include "data/sample_size.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>

#include "data/media.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

class Measurer {
 public:
  Measurer(const Dataset& dataset, const Processor& processor)
      : dataset_(dataset), processor_(processor) {
    const std::vector<std::int64_t> one = processor.tokenizer().encode("<image>");
    image_id_ = one.size() == 1 ? one[0] : -1;
  }

  SampleSize measure(std::int64_t index) {
    const Sample sample = dataset_.at(index);
    try {
      std::vector<PixelSize> sizes;
      for (const auto& path : sample.images) sizes.push_back(size_of(path));
      ProcessedPictures pictures{.texts = processor_.picture_texts(sizes)};
      const EncodedConversation encoded = processor_.encode_conversation(sample.messages, pictures);
      SampleSize size{.tokens = static_cast<std::int64_t>(encoded.ids.size())};
      size.labels = std::count(encoded.is_trained.begin(), encoded.is_trained.end(), true);
      size.tiles = std::count(encoded.ids.begin(), encoded.ids.end(), image_id_) /
                   processor_.tokens_per_tile();
      return size;
    } catch (const Error& error) {
      throw located(error, sample.where);
    }
  }

 private:
  PixelSize size_of(const std::filesystem::path& path) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = sizes_.find(path.string());
      if (found != sizes_.end()) return found->second;
    }
    const Image image = load_image(path);
    const std::lock_guard lock(mutex_);
    return sizes_[path.string()] = {.height = image.height, .width = image.width};
  }

  const Dataset& dataset_;
  const Processor& processor_;
  std::int64_t image_id_;
  std::mutex mutex_;
  std::map<std::string, PixelSize> sizes_;  // by path
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
