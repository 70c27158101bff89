// Engines that share one machine: they work one at a time, and share the places for requests.
//
//   an engine's thread ─► take (waits for its turn) ─► places, a round of work, note ─► the turn of
//   the engine that has waited longest
//
// So every engine that has work gets its rounds, a token for each stream in each of them. A place
// that gets free goes to the engine whose oldest request has waited longest. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace vlm::infer {

class EngineTurns {
 public:
  // `places`: requests of all engines together that are answered at once.
  explicit EngineTurns(std::int64_t places) : places_(places) {}
  EngineTurns(const EngineTurns&) = delete;
  EngineTurns& operator=(const EngineTurns&) = delete;

  struct EndTurn {
    void operator()(EngineTurns* turns) const { turns->end_turn(); }
  };
  using Turn = std::unique_ptr<EngineTurns, EndTurn>;  // until it is destroyed
  // Behind those that asked before.
  Turn take();

  struct Need {
    std::int64_t running = 0;                                            // places that it has
    std::optional<std::chrono::steady_clock::time_point> waiting_since;  // of its oldest request
  };
  // An engine tells what it has and needs, in its turn. → how many places it may have.
  std::int64_t note(const void* engine, const Need& need);
  // The engine is no more.
  void leave(const void* engine);

 private:
  void end_turn();

  const std::int64_t places_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t next_ticket_ = 0, current_ticket_ = 0;
  std::map<const void*, Need> needs_;
};

}  // namespace vlm::infer
