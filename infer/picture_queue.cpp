#include "infer/picture_queue.h"

#include "data/media.h"
#include "infer/batch_runner.h"
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
    const auto messages = make_conversation(item.prompt, 1, options_.system);
    prepared.prompt = processor_.encode_prompt(messages, {data::load_image(item.path)});
  } catch (
      const std::exception& error) {  // also bad_alloc for one huge picture: it costs its own row
    prepared.error = error.what();
  }
  return prepared;
}

std::vector<Message> make_conversation(const std::string& prompt, std::size_t images,
                                       const std::string& system) {
  std::vector<Message> messages;
  if (!system.empty())
    messages.push_back({.role = "system", .content = {{.type = "text", .text = system}}});
  Message user{.role = "user"};
  for (std::size_t i = 0; i < images; ++i) user.content.push_back({.type = "image"});
  user.content.push_back({.type = "text", .text = prompt});
  messages.push_back(std::move(user));
  return messages;
}

}  // namespace vlm::infer
