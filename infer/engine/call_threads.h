// A few threads that prepare requests for an engine: pictures are decoded and prompts made in them.
//
//   post(task) ─► a thread, once a place is free ─► task(place)
//
// A task keeps its place as long as any copy of it lives, so it hands one on with what it submits:
// then no more requests than there are places hold decoded pictures at the same time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace vlm::infer {

class CallThreads {
 public:
  using Place = std::shared_ptr<void>;
  // A null place: the threads are about to end, and there will be none.
  using Task = std::function<void(Place)>;

  explicit CallThreads(std::int64_t places);
  // Runs what is posted, without places.
  ~CallThreads();
  CallThreads(const CallThreads&) = delete;
  CallThreads& operator=(const CallThreads&) = delete;

  // Any thread. The task throws nothing.
  void post(Task task);

 private:
  struct State;
  static void run(State& state);

  std::shared_ptr<State> state_;  // places outlive the threads
  std::vector<std::thread> threads_;
};

}  // namespace vlm::infer
