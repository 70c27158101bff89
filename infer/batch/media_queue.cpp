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
      next_group_(options.shard.index),
      workers_({.name = "vlm media",
                .workers = std::max<std::int64_t>(options.workers, 1),
                .values = 8},  // of a group whose neighbours show different media
               {.open = [this] { return open(); },
                .make =
                    [this](std::int64_t group, auto& output) {
                      for (ItemGroup& part : items_.group(group)) {
                        if (is_pending(part)) output.put(prepare(std::move(part)));
                      }
                    },
                .may_open =
                    [this](std::int64_t held) {
                      return held < std::max<std::int64_t>(options_.workers, 1) ||
                             items_ahead_ < options_.ahead;
                    }}) {}

std::optional<PreparedGroup> MediaQueue::next() {
  std::optional<PreparedGroup> group = workers_.next();
  if (!group) return group;
  items_ahead_ -= std::ssize(group->items);
  workers_.wake();
  return group;
}

std::int64_t MediaQueue::pending_in(std::int64_t group) const {
  const auto begin = done_.begin() + items_.first_item(group);
  return std::count(begin, done_.begin() + items_.first_item(group + 1), false);
}

std::optional<std::int64_t> MediaQueue::open() {
  while (next_group_ < items_.groups()) {
    const std::int64_t group = next_group_;
    next_group_ += options_.shard.count;
    const std::int64_t items = pending_in(group);
    items_ahead_ += items;
    if (items > 0) return group;
  }
  return std::nullopt;
}

bool MediaQueue::is_pending(const ItemGroup& group) const {
  return std::any_of(group.items.begin(), group.items.end(), [this](const BatchItem& item) {
    return !done_[static_cast<std::size_t>(item.ordinal)];
  });
}

PreparedGroup MediaQueue::prepare(ItemGroup group) const {
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
  const auto videos = std::count_if(group.media.begin(), group.media.end(), [](const auto& medium) {
    return medium.kind == MediaKind::kVideo;
  });
  if (videos == 1) return;
  throw Error({.what = "segments are of one video",
               .where = group.items.front().id,
               .got = concat(videos, " videos"),
               .wanted = "one in the item"});
}

void encode_prompt(PreparedItem& prepared, const Processor& processor,
                   const ProcessedMedia& media) {
  try {
    EncodedConversation prompt = processor.encode_prompt(prepared.item.messages, media);
    prepared.prompt = std::move(prompt.ids);
    prepared.layout = std::move(prompt.layout);
  } catch (const std::exception& error) {
    prepared.error = failure_text(error);
    prepared.is_out_of_memory = is_out_of_memory(error);
  }
}

}  // namespace vlm::infer
