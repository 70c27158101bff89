#include "infer/batch/media_queue.h"

#include <algorithm>

#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

MediaQueue::MediaQueue(Generator& generator, const ItemList& items, std::vector<bool> done,
                       const MediaQueueOptions& options)
    : generator_(generator),
      items_(items),
      done_(std::move(done)),
      options_(options),
      next_group_(options.shard.index) {
  skip_finished();
  for (std::int64_t i = 0; i < std::max<std::int64_t>(options_.workers, 1); ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

MediaQueue::~MediaQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::optional<PreparedGroup> MediaQueue::next() {
  std::unique_lock lock(mutex_);
  if (handed_out_ == claimed_ && next_group_ >= items_.groups()) return std::nullopt;
  changed_.wait(lock, [this] { return ready_.count(handed_out_) > 0; });
  PreparedGroup group = std::move(ready_.extract(handed_out_).mapped());
  ++handed_out_;
  items_ahead_ -= static_cast<std::int64_t>(group.items.size());
  changed_.notify_all();
  if (group.failure) std::rethrow_exception(group.failure);
  return group;
}

bool MediaQueue::is_ready() {
  const std::lock_guard lock(mutex_);
  return ready_.count(handed_out_) > 0 ||
         (handed_out_ == claimed_ && next_group_ >= items_.groups());
}

std::int64_t MediaQueue::pending_in(std::int64_t group) const {
  const auto begin = done_.begin() + items_.first_item(group);
  return std::count(begin, done_.begin() + items_.first_item(group + 1), false);
}

void MediaQueue::skip_finished() {
  while (next_group_ < items_.groups() && pending_in(next_group_) == 0) {
    next_group_ += options_.shard.count;
  }
}

bool MediaQueue::may_claim() const {
  return items_ahead_ < options_.ahead || claimed_ - handed_out_ < options_.workers;
}

void MediaQueue::work() {
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
    PreparedGroup prepared{.media = ShownMedia(generator_.processor(), generator_.encoder())};
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

PreparedGroup MediaQueue::prepare(std::int64_t index) const {
  ItemGroup group = items_.group(index);
  PreparedGroup prepared{.media = ShownMedia(generator_.processor(), generator_.encoder())};
  std::string failure;
  bool lacks_memory = false;
  try {
    check_segments(group);
    for (const MediaRef& medium : group.media) prepared.media.add(medium, options_.video);
    if (!prepared.media.has_videos()) prepared.media.processed();  // joined here, not by the model
  } catch (const std::exception& error) {  // also bad_alloc for one huge picture: it costs its rows
    failure = failure_text(error);
    lacks_memory = is_out_of_memory(error);
  }
  for (BatchItem& item : group.items) {
    if (done_[static_cast<std::size_t>(item.ordinal)]) continue;
    PreparedItem ready{.item = std::move(item)};
    ready.is_out_of_memory = ready.item.error.empty() && lacks_memory;
    ready.error = ready.item.error.empty() ? failure : ready.item.error;
    if (ready.error.empty() && !prepared.media.has_videos()) {
      encode_prompt(ready, generator_.processor(), prepared.media.processed());
      ready.item.messages.clear();  // a row doesn't need them, and many wait
    }
    prepared.items.push_back(std::move(ready));
  }
  return prepared;
}

void MediaQueue::check_segments(const ItemGroup& group) const {
  if (!options_.video.segment_s) return;
  const auto videos = std::count_if(group.media.begin(), group.media.end(),
                                    [](const auto& one) { return one.kind == MediaKind::kVideo; });
  if (videos == 1) return;
  throw Error({.what = "segments are of one video",
               .where = group.items.front().id,
               .got = concat(videos, " videos"),
               .wanted = "one in the item"});
}

void encode_prompt(PreparedItem& one, const Processor& processor, const ProcessedMedia& media) {
  try {
    one.prompt = processor.encode_prompt(one.item.messages, media).ids;
  } catch (const std::exception& error) {
    one.error = failure_text(error);
    one.is_out_of_memory = is_out_of_memory(error);
  }
}

}  // namespace vlm::infer
