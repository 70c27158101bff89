// Groups of a list of items, their media read ahead by threads, handed out in the order of the
// list.
//
//   ItemList ─► (threads: read, decode, tile, encode the text) ─► PreparedGroup, in order
//
// The media of a group are read once, whatever the number of its questions. A video is handed out
// while it is still being decoded (VideoStream), and what its prompts say isn't known before its
// end: whoever takes the group encodes them. Items that are done, and groups of other shards, are
// left out.
#pragma once

#include <atomic>
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

// An item ready for the model, or why it isn't.
struct PreparedItem {
  BatchItem item;
  std::vector<std::int64_t> prompt = {};  // ids; with videos, once they are read
  std::string error = {};
  bool is_out_of_memory = false;  // the error's reason
};

struct PreparedGroup {
  ShownMedia media;
  std::vector<PreparedItem> items = {};
};

// Gives the item its prompt, or tells in its error why there is none.
void encode_prompt(PreparedItem& one, const Processor& processor, const ProcessedMedia& media);

struct MediaQueueOptions {
  std::int64_t workers = 2;
  std::int64_t ahead = 16;  // most items held ready, but at least a group a thread: bounds memory
  Shard shard = {};
  VideoStreamOptions video = {};
};

class MediaQueue {
 public:
  // Generator and list must outlive the queue. Of the generator, processor and encoder are used.
  // `done` says which items are left out.
  MediaQueue(Generator& generator, const ItemList& items, std::vector<bool> done,
             const MediaQueueOptions& options);
  // The next group's items that are not done; nothing at the end. Throws what a thread met that
  // was no item's own fault.
  std::optional<PreparedGroup> next();
  // Whether next() would return at once.
  bool is_ready() { return workers_.is_ready(); }

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
  std::int64_t next_group_;                    // the first that isn't opened yet
  std::atomic<std::int64_t> items_ahead_ = 0;  // of the groups that are opened and not taken
  OrderedWorkers<std::int64_t, PreparedGroup> workers_;
};

}  // namespace vlm::infer
