// What an Engine consists of: the queue that callers fill, and the thread that empties it.
//
//   inbox, cancellations (any thread) ─► run (the model's thread): take in ─► read media ─► step ─►
//   answers to their jobs
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "infer/engine/engine_job.h"

namespace vlm::infer {

class EngineWork {
 public:
  EngineWork(Generator& generator, const EngineOptions& options);
  ~EngineWork();

  // As Engine's.
  std::uint64_t submit(EngineRequest request, EngineEvents events);
  void cancel(std::uint64_t number);
  void drain(double most_s);
  EngineStats stats() const;
  Generator& generator() { return generator_; }

 private:
  using Job = std::unique_ptr<EngineJob>;

  void check_room(std::int64_t bytes) const;
  void run();
  bool take_in();
  void cancel_job(EngineJob& job);
  void take_job(Job job);
  void ask(EngineJob& job);
  void end_waiting();
  void read_media();
  bool read_piece(EngineJob& job);
  void step();
  std::optional<EngineJob::Clock::time_point> waiting_since() const;
  void take_places();
  void record(RequestAnswer answer);
  void fail_all(const std::exception& error);
  void end(EngineJob& job, Outcome outcome, const std::string& error);
  void start(EngineJob& job);
  void conclude(EngineJob& job, RequestAnswer answer);
  void count(const RequestAnswer& answer);
  void forget(EngineJob& job);
  bool has_news() const;
  void publish();

  Generator& generator_;
  const EngineOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // With the mutex.
  std::deque<Job> inbox_;
  std::vector<std::uint64_t> cancelled_;
  std::uint64_t last_number_ = 0;
  std::int64_t open_jobs_ = 0;  // whose callers haven't been told all
  bool is_draining_ = false, is_ending_ = false;
  EngineJob::Clock::time_point drained_by_ = {};
  EngineStats stats_;

  // The model's thread alone.
  std::unordered_map<std::uint64_t, Job> jobs_;               // by their number
  std::unordered_map<std::uint64_t, EngineJob*> by_request_;  // by the generator's number
  std::deque<EngineJob*> reading_;                            // their media, in this order
  std::uint64_t last_request_ = 0;
  bool has_read_ = false;  // in this round, a piece of media

  std::thread thread_;
};

}  // namespace vlm::infer
