#include "infer/batch/picture_queue.h"

#include "data/media.h"
#include "infer/batch/batch_runner.h"
#include "vlm/core/error.h"

namespace vlm::infer {

PictureQueue::PictureQueue(const Processor& processor, std::vector<BatchItem> items,
                           const PictureQueueOptions& options)
    : processor_(processor), items_(std::move(items)), options_(options) {
  for (std::int64_t i = 0; i < std::max<std::int64_t>(options_.workers, 1); ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

PictureQueue::~PictureQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

PreparedPrompt PictureQueue::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.count(handed_out_) > 0; });
  PreparedPrompt prepared = std::move(ready_.extract(handed_out_).mapped());
  ++handed_out_;
  changed_.notify_all();
  return prepared;
}

void PictureQueue::work() {
  for (;;) {
    std::size_t index = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] {
        return stopping_ || claimed_ >= items_.size() ||
               claimed_ < handed_out_ + static_cast<std::size_t>(options_.ahead);
      });
      if (stopping_ || claimed_ >= items_.size()) return;
      index = claimed_++;
    }
    PreparedPrompt prepared = prepare(items_[index]);
    const std::lock_guard lock(mutex_);
    ready_.emplace(index, std::move(prepared));
    changed_.notify_all();
  }
}

PreparedPrompt PictureQueue::prepare(const BatchItem& item) const {
  PreparedPrompt prepared;
  try {
    std::vector<Image> images;
    for (const auto& path : item.images) images.push_back(data::load_image(path));
    prepared.prompt = processor_.encode_prompt(item.messages, images);
  } catch (
      const std::exception& error) {  // also bad_alloc for one huge picture: it costs its own row
    prepared.error = error.what();
  }
  return prepared;
}

}  // namespace vlm::infer
