// One request for an answer, from its body to the last byte.
//
//   network thread ─► media pool: read (an adapter may have to be loaded), decode, tokenize ─►
//   writer: submit ─► engine ─► writer: events
//
// The writer is one thread: all that happens behind the pool happens there, in order. A client that
// leaves cancels the request wherever it is.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine/worker_pool.h"
#include "infer/server/api/api_error.h"
#include "infer/server/api/reply_writer.h"
#include "infer/server/api/response_request.h"
#include "infer/server/http/http_handler.h"
#include "infer/server/metrics.h"
#include "infer/server/models/model_shelf.h"
#include "infer/server/request_log.h"

namespace vlm::infer {

// What all requests share. It outlives them.
struct ServiceParts {
  ApiLimits limits;
  std::int64_t max_queue = 64;
  Metrics metrics;
  std::atomic<bool> is_ready{false};  // the models are loaded, and don't change any more
  std::atomic<bool> is_stopping{false};
  std::unique_ptr<ModelShelf> models;
  std::atomic<std::int64_t> preparing{0};  // requests that are no engine's yet
  WorkerPool media{2}, fetching{4};
  WorkerPool writer{1};

  // Seconds after which a place in the queue is likely.
  std::int64_t retry_after_s() const;
};

// One more in a count, as long as somebody has it.
using CountHold = std::shared_ptr<std::atomic<std::int64_t>>;
CountHold hold_one(std::atomic<std::int64_t>& count);

class AnswerJob : public std::enable_shared_from_this<AnswerJob> {
 public:
  enum class Kind { kChat, kCompletion, kResponse, kCountTokens };

  // Whose request it is: a key by its number, and its place, given back when the answer is there.
  struct Asker {
    std::size_t key = 0;
    CountHold place = nullptr;
  };
  AnswerJob(ServiceParts& parts, Kind kind, std::shared_ptr<Exchange> exchange, Asker asker);

  // On the network thread. `headers` go with every reply.
  void start(WebRequest request, std::vector<HttpHeader> headers);

 private:
  void prepare(WebRequest request);
  void go_on(OpenedModel opened);
  void in_pool(const std::function<void()>& work);
  void read(const std::string& body);
  void prepare_prompt();
  void make_reply();
  void submit();
  void cancel();
  EngineRequest make_request();
  void begin_stream();
  void on_piece(AnswerPiece piece);
  void keep_leading_space(AnswerPiece& piece) const;
  static void drop_leading_spaces(AnswerPiece& piece);
  void on_done(const RequestAnswer& answer);
  void finish(const RequestAnswer& answer);
  void choose(const RequestAnswer& answer, ReplyParts& parts);
  void keep_facts(const RequestAnswer& answer, const OrderedJson& usage);
  void fail(const ApiError& error);
  void refuse(const ApiError& error);
  ApiError failure_of(const RequestAnswer& answer) const;
  double seconds() const;

  ServiceParts& parts_;
  const Kind kind_;
  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<RequestFacts> facts_ = std::make_shared<RequestFacts>();
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string request_id_;
  std::vector<HttpHeader> headers_;

  // Set in the pool, before the writer sees the job.
  AskedAnswer asked_;
  std::optional<ChatRequest> chat_;
  std::optional<CompletionRequest> completion_;
  ResponseEcho echo_;
  ModelLease model_;
  const std::size_t owner_;
  CountHold preparing_, key_place_;
  PreparedPrompt prepared_;
  GenerationOptions generation_;
  std::unique_ptr<ReplyWriter> reply_;

  // The writer's.
  std::optional<std::uint64_t> number_;  // in the engine
  bool is_streaming_ = false;
  std::vector<ReplyChoice> choices_;
  std::vector<bool> has_begun_;                        // of each of them
  std::vector<std::vector<std::int64_t>> choice_ids_;  // where choices are scored
  double last_piece_s_ = 0;
};

}  // namespace vlm::infer
