// One model for many callers: requests from any thread in, streams of pieces and answers out.
//
//   submit (any thread) ─► queue ─► the model's thread: Generator::step … ─► EngineEvents
//
// The engine's thread alone works with the generator. Requests go in by the order of their arrival,
// as far as places and memory allow; none overtakes another for ever. A request's answer doesn't
// depend on what is asked beside it (up to rounding), and its failure is its own where it is known
// whose it is. Decoding media and tokenizing are the caller's, before submit; only the frames of
// videos are encoded as they come.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "infer/engine/answer_pieces.h"
#include "infer/engine/engine_turns.h"
#include "infer/generator.h"
#include "infer/media/shown_media.h"
#include "vlm/core/error.h"

namespace vlm::infer {

struct EngineOptions {
  std::int64_t max_running = 8;   // requests (with the same media: groups) decoded together
  std::int64_t max_waiting = 64;  // more are refused: EngineFull
  double queue_timeout_s = 0;     // one that waits longer fails with Outcome::kTimedOut; 0: none
  std::int64_t cache_bytes = 0;   // bound of the keys and values of what runs; 0: none
  std::int64_t media_bytes = 0;   // bound of the pixels and features of all requests; 0: none
  std::int64_t kept_media_bytes = 0;   // features kept for later requests that show the same
  std::int64_t kept_prefix_bytes = 0;  // keys and values kept of recent prompts and their answers
  GenerationPace pace = GenerationPace::kServing;
  // Shared with other engines of the machine, whose places then count instead of max_running; null:
  // there are none.
  std::shared_ptr<EngineTurns> turns = {};
};

// Requests about the same media; most callers have one. An id of a request is the caller's own and
// comes back with its pieces and its answer.
struct EngineRequest {
  std::vector<Request> requests;
  // What the prompts show, where no video is among it; null: none.
  std::shared_ptr<PictureFeatures> pictures = {};
  // Or media with videos: read first, piece by piece between the tokens of others. `show` then sets
  // a request's prompt and layout, once a take. What it throws is that request's failure.
  std::shared_ptr<ShownMedia> media = {};
  std::function<void(ShownMedia&, Request&)> show = {};
  double media_time_limit_s = 0;  // for reading a take; 0: none

  // One prompt, as a processor gives it. `request` holds all but prompt and layout.
  static EngineRequest of(EncodedConversation prompt, Request request);
};

// All of them are called on the model's thread, or, when submit throws, never. They must return at
// once: append to a queue and wake somebody. What they throw cancels the request.
struct EngineEvents {
  // The request leaves the queue.
  std::function<void()> on_started = {};
  // More of an answer; of beam search all of it, at its end.
  std::function<void(AnswerPiece)> on_piece = {};
  // Once a take and request, for videos that are shown segment by segment.
  std::function<void(const TimeSegment&, RequestAnswer&)> on_segment = {};
  // Exactly once a request, whatever happened: answer.outcome says what.
  std::function<void(RequestAnswer)> on_done;
};

// The queue holds as many requests, or bytes, as it may.
class EngineFull : public Error {
 public:
  using Error::Error;
};

// The engine takes no more requests: it was drained.
class EngineStopped : public Error {
 public:
  using Error::Error;
};

struct EngineStats {
  std::int64_t waiting = 0, running = 0;  // requests
  std::int64_t media_bytes = 0, cache_bytes = 0;
  std::int64_t kept_media_bytes = 0, kept_prefix_bytes = 0;
  // Since the engine was made.
  std::int64_t answered = 0, refused = 0, cancelled = 0, timed_out = 0, failed = 0;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, media_tokens = 0, answer_tokens = 0;
  std::int64_t encoded_units = 0;  // Pixels::units
  std::int64_t media_hits = 0, media_misses = 0, prefix_hits = 0, prefix_queries = 0;
  GenerationTiming timing;
};

class EngineWork;

class Engine {
 public:
  // The generator must outlive the engine and is the engine's alone meanwhile. Starts the thread.
  explicit Engine(Generator& generator, const EngineOptions& options = {});
  // Cancels what is there.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Any thread. → a number for cancel. Throws EngineFull or EngineStopped; then no event comes.
  std::uint64_t submit(EngineRequest request, EngineEvents events);
  // Of one request, without events.
  std::future<RequestAnswer> submit(EngineRequest request);

  // Any thread, in every state of the request; its rows are free before the next step. An unknown
  // number, or one that is done, is ignored. on_done comes with Outcome::kCancelled, unless the
  // answer was ready before.
  void cancel(std::uint64_t number);

  // Refuses new requests, ends those that wait with Outcome::kStopped, and returns when those that
  // run have finished; after so many seconds these end with kStopped, too.
  void drain(double most_s);

  // Any thread; as of the last step.
  EngineStats stats() const;

  // For making prompts and media, in any thread.
  const Processor& processor() const;
  PictureEncoder& encoder();
  std::int64_t max_positions() const;

 private:
  std::unique_ptr<EngineWork> work_;
};

}  // namespace vlm::infer
