// Reads pictures and videos ahead, in threads, and gives the groups out in the order of the list.
//
//   ItemList ─► (threads: read, decode, tile, encode the text) ─► PreparedGroup, in order
//
// A group's media are read once for all its questions. A group with a video is given out while the
// video is still being decoded (VideoStream). Its prompts depend on the frames, so the caller makes
// them afterwards with encode_prompt. Items that are done and groups of other shards are left out.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "infer/batch/journal.h"
#include "infer/generator.h"
#include "infer/items/item_list.h"
#include "infer/media/shown_media.h"
#include "vlm/io/ordered_workers.h"

namespace vlm::infer {

// An item with its prompt, or with the error that kept it from getting one.
struct PreparedItem {
  BatchItem item;
  std::vector<std::int64_t> prompt = {};  // token ids; with videos empty until encode_prompt
  PromptLayout layout = {};
  std::string error = {};
  bool is_out_of_memory = false;  // the cause of the error
};

struct PreparedGroup {
  ShownMedia media;
  std::vector<PreparedItem> items = {};
};

// Sets the item's prompt or, when that fails, its error.
void encode_prompt(PreparedItem& prepared, const Processor& processor, const ProcessedMedia& media);

struct MediaQueueOptions {
  std::int64_t workers = 2;
  std::int64_t ahead = 16;  // most items held in memory, but at least one group for each thread
  Shard shard = {};
  VideoStreamOptions video = {};
};

class MediaQueue {
 public:
  // Generator and list must outlive the queue, which uses the generator's processor and encoder.
  // `done` marks the items to leave out.
  MediaQueue(Generator& generator, const ItemList& items, std::vector<bool> done,
             const MediaQueueOptions& options);
  // The next group, without its items that are done; nothing at the end. Rethrows an exception of a
  // thread that belongs to no single item.
  std::optional<PreparedGroup> next();
  // True when next() would return without waiting; waits so long for that.
  bool is_ready(std::chrono::milliseconds patience = {}) { return workers_.is_ready(patience); }

 private:
  std::optional<std::int64_t> open();  // a group's number
  std::int64_t pending_in(std::int64_t group) const;
  bool is_pending(const ItemGroup& group) const;
  PreparedGroup prepare(ItemGroup group) const;
  void check_segments(const ItemGroup& group) const;

  Generator& generator_;
  const ItemList& items_;
  const std::vector<bool> done_;
  const MediaQueueOptions options_;
  std::int64_t next_group_;                    // the first group that no thread has begun
  std::atomic<std::int64_t> items_ahead_ = 0;  // items in groups begun and not given out yet
  OrderedWorkers<std::int64_t, PreparedGroup> workers_;
};

}  // namespace vlm::infer
