// Prompts of a list of items, their pictures decoded and processed ahead by threads, handed out in
// order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vlm/models/processor.h"

namespace vlm::infer {

struct BatchItem;

// A prompt ready for the model, or why there is none.
struct PreparedPrompt {
  EncodedConversation prompt;
  std::string error;
};

struct PictureQueueOptions {
  std::int64_t workers = 2;
  std::int64_t ahead = 16;  // most prompts held ready, which bounds memory
};

class PictureQueue {
 public:
  // The processor must outlive the queue.
  PictureQueue(const Processor& processor, std::vector<BatchItem> items,
               const PictureQueueOptions& options);
  ~PictureQueue();
  PictureQueue(const PictureQueue&) = delete;
  PictureQueue& operator=(const PictureQueue&) = delete;

  // The next item's prompt. Called at most once an item.
  PreparedPrompt next();

 private:
  void work();
  PreparedPrompt prepare(const BatchItem& item) const;

  const Processor& processor_;
  std::vector<BatchItem> items_;
  PictureQueueOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::size_t, PreparedPrompt> ready_;  // by index
  std::size_t claimed_ = 0;                      // items taken by threads
  std::size_t handed_out_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vlm::infer
