// Groups of a list of items, their pictures decoded and processed ahead by threads, handed out in
// the order of the list.
//
//   ItemList ─► (threads: read, decode, tile, encode the text) ─► PreparedGroup, in order
//
// The pictures of a group are processed once, whatever the number of its questions. Items that are
// done, and groups of other shards, are left out.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "infer/batch/journal.h"
#include "infer/items/item_list.h"
#include "vlm/models/processor.h"

namespace vlm::infer {

// An item ready for the model, or why it isn't.
struct PreparedItem {
  BatchItem item;
  EncodedConversation prompt;  // pixel_values shared by the whole group
  std::string error;
};

struct PreparedGroup {
  std::vector<PreparedItem> items;
  std::exception_ptr failure;  // of the input itself, not of one item
};

struct PictureQueueOptions {
  std::int64_t workers = 2;
  std::int64_t ahead = 16;  // most items held ready, but at least a group a thread: bounds memory
  Shard shard = {};
};

class PictureQueue {
 public:
  // Processor and list must outlive the queue. `done` says which items are left out.
  PictureQueue(const Processor& processor, const ItemList& items, std::vector<bool> done,
               const PictureQueueOptions& options);
  ~PictureQueue();
  PictureQueue(const PictureQueue&) = delete;
  PictureQueue& operator=(const PictureQueue&) = delete;

  // The next group's items that are not done; nothing at the end. Throws what a thread met that
  // was no item's own fault.
  std::optional<std::vector<PreparedItem>> next();
  // Whether next() would return at once.
  bool is_ready();

 private:
  void work();
  bool may_claim() const;
  std::int64_t pending_in(std::int64_t group) const;
  void skip_finished();
  PreparedGroup prepare(std::int64_t group) const;

  const Processor& processor_;
  const ItemList& items_;
  const std::vector<bool> done_;
  const PictureQueueOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, PreparedGroup> ready_;  // by the order of claiming
  std::int64_t next_group_ = 0;                  // the first not claimed yet
  std::int64_t claimed_ = 0, handed_out_ = 0;    // groups
  std::int64_t items_ahead_ = 0;                 // claimed and not handed out
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vlm::infer
