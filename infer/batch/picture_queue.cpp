#include "infer/batch/picture_queue.h"

#include <algorithm>

#include "vlm/core/error.h"

namespace vlm::infer {

PictureQueue::PictureQueue(const Processor& processor, const ItemList& items,
                           std::vector<bool> done, const PictureQueueOptions& options)
    : processor_(processor),
      items_(items),
      done_(std::move(done)),
      options_(options),
      next_group_(options.shard.index) {
  skip_finished();
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

std::optional<std::vector<PreparedItem>> PictureQueue::next() {
  std::unique_lock lock(mutex_);
  if (handed_out_ == claimed_ && next_group_ >= items_.groups()) return std::nullopt;
  changed_.wait(lock, [this] { return ready_.count(handed_out_) > 0; });
  PreparedGroup group = std::move(ready_.extract(handed_out_).mapped());
  ++handed_out_;
  items_ahead_ -= static_cast<std::int64_t>(group.items.size());
  changed_.notify_all();
  if (group.failure) std::rethrow_exception(group.failure);
  return std::move(group.items);
}

bool PictureQueue::is_ready() {
  const std::lock_guard lock(mutex_);
  return ready_.count(handed_out_) > 0 ||
         (handed_out_ == claimed_ && next_group_ >= items_.groups());
}

std::int64_t PictureQueue::pending_in(std::int64_t group) const {
  const auto begin = done_.begin() + items_.first_item(group);
  return std::count(begin, done_.begin() + items_.first_item(group + 1), false);
}

void PictureQueue::skip_finished() {
  while (next_group_ < items_.groups() && pending_in(next_group_) == 0) {
    next_group_ += options_.shard.count;
  }
}

bool PictureQueue::may_claim() const {
  return items_ahead_ < options_.ahead || claimed_ - handed_out_ < options_.workers;
}

void PictureQueue::work() {
  for (;;) {
    std::int64_t order = 0, group = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock,
                    [this] { return stopping_ || next_group_ >= items_.groups() || may_claim(); });
      if (stopping_ || next_group_ >= items_.groups()) return;
      order = claimed_++;
      group = next_group_;
      items_ahead_ += pending_in(group);
      next_group_ += options_.shard.count;
      skip_finished();
    }
    PreparedGroup prepared;
    try {
      prepared = prepare(group);
    } catch (...) {
      prepared.failure = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    ready_.emplace(order, std::move(prepared));
    changed_.notify_all();
  }
}

PreparedGroup PictureQueue::prepare(std::int64_t index) const {
  ItemGroup group = items_.group(index);
  PreparedGroup prepared;
  ProcessedMedia pictures;
  std::string failure;
  try {
    std::vector<Image> images;
    for (const MediaRef& picture : group.pictures) images.push_back(load_picture(picture));
    pictures = processor_.process_pictures(images);
  } catch (const std::exception& error) {  // also bad_alloc for one huge picture: it costs its rows
    failure = error.what();
  }
  for (BatchItem& item : group.items) {
    if (done_[static_cast<std::size_t>(item.ordinal)]) continue;
    PreparedItem ready{.item = std::move(item)};
    ready.error = ready.item.error.empty() ? failure : ready.item.error;
    if (ready.error.empty()) {
      try {
        ready.prompt = processor_.encode_prompt(ready.item.messages, pictures);
      } catch (const std::exception& error) {
        ready.error = error.what();
      }
    }
    ready.item.messages.clear();  // a row doesn't need them, and many wait
    prepared.items.push_back(std::move(ready));
  }
  return prepared;
}

}  // namespace vlm::infer
