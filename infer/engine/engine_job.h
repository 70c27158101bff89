// A submitted EngineRequest on its way: which of its requests are with the generator, and what
// their callers have been told.
//
//   EngineRequest, EngineEvents ─► EngineJob ─► Requests for the generator; RequestAnswers ─►
//   events
//
// A job whose media are shown take by take asks each request once a take, and tells its caller of
// the last one's answer. Everything but the constructor is for the model's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "infer/engine/engine.h"

namespace vlm::infer {

class EngineJob {
 public:
  using Clock = std::chrono::steady_clock;

  EngineJob(std::uint64_t number, EngineRequest request, EngineEvents events);

  std::uint64_t number() const { return number_; }
  // Bytes of pixels that came with it; told once.
  std::int64_t release_media_bytes() { return std::exchange(media_bytes_, 0); }
  Clock::time_point submitted() const { return submitted_; }
  bool has_started() const { return has_started_; }
  // Every request has had its last event.
  bool is_done() const;
  std::int64_t open_requests() const;

  // Media that are to be read before it can be asked about; null: none, or none left.
  ShownMedia* media() { return has_takes_ ? request_.media.get() : nullptr; }
  double media_time_limit_s() const { return request_.media_time_limit_s; }

  struct Asking {
    RequestGroup group;
    std::vector<RequestAnswer> refused;  // that can't be asked
  };
  // Asks about the pictures, or about the take that was read. `next_id` gives numbers for the
  // generator; `on_start` is called when the group leaves its queue.
  Asking ask(const std::function<std::uint64_t()>& next_id, const Tokenizer& tokenizer,
             const std::function<void()>& on_start);
  // Numbers of requests that the generator works at.
  std::vector<std::uint64_t> asked() const;

  void start() noexcept;
  // An answer of the generator. → what became of the request, if this was its end.
  std::optional<RequestAnswer> record(RequestAnswer answer);
  // All open requests end so.
  std::vector<RequestAnswer> end(Outcome outcome, const std::string& error);
  // Tells the caller of a request's end.
  void tell(RequestAnswer answer) noexcept;

 private:
  struct Sequences;
  struct Open {
    std::shared_ptr<Sequences> sequences = {};
    std::int64_t in_flight = 0;
    bool is_done = false;
  };
  struct Asked {
    std::size_t request;
    TimeSegment segment;
  };

  Request make_request(std::size_t index);
  void stream(Open& open, Request& request, const Tokenizer& tokenizer) const;
  void finish_stream(Open& open, RequestAnswer& answer) const;
  RequestAnswer close(std::size_t index, RequestAnswer answer);

  std::uint64_t number_;
  EngineRequest request_;
  EngineEvents events_;
  Clock::time_point submitted_ = Clock::now();
  std::int64_t media_bytes_ = 0;
  bool has_started_ = false, has_takes_ = false;
  std::vector<Open> open_;          // of each request
  std::vector<std::uint64_t> ids_;  // the caller's
  std::unordered_map<std::uint64_t, Asked> asked_;
};

}  // namespace vlm::infer
