// Callers of an engine: what they ask, what they were told, and a model that waits for them.
#pragma once

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infer/engine/engine.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"
#include "tests/support/watched_model.h"

namespace vlm::infer {

// The prompts of a fixture's golden answers.
inline std::vector<EncodedConversation> golden_prompts(const Session& session,
                                                       const std::string& name) {
  std::vector<EncodedConversation> prompts;
  const Json golden = load_json(fixture(name + "/golden.json"));
  for (const Json& one : golden["generate"]) prompts.push_back(encode(session, one));
  REQUIRE_FALSE(prompts.empty());
  return prompts;
}

inline void check_same(const Generation& found, const Generation& wanted) {
  CHECK(found.ids == wanted.ids);
  CHECK(found.text == wanted.text);
  CHECK(found.finish_reason == wanted.finish_reason);
  CHECK(found.mean_logprob() == Approx(wanted.mean_logprob()).margin(1e-4));
}

struct Collected {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<AnswerPiece> pieces;
  std::optional<RequestAnswer> answer;
  int ends = 0;

  EngineEvents events() {
    return {.on_piece =
                [this](AnswerPiece piece) {
                  const std::lock_guard lock(mutex);
                  pieces.push_back(std::move(piece));
                },
            .on_done =
                [this](RequestAnswer done) {
                  const std::lock_guard lock(mutex);
                  answer = std::move(done);
                  ++ends;
                  changed.notify_all();
                }};
  }
  RequestAnswer wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return answer.has_value(); });
    return *answer;
  }
  std::string text(std::int64_t sequence = 0) {
    const std::lock_guard lock(mutex);
    std::string joined;
    for (const AnswerPiece& piece : pieces) {
      if (piece.sequence == sequence) joined += piece.text;
    }
    return joined;
  }
};

// Passes of a model wait here until they are let on.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    is_reached_ = allowed_ == 0;
    changed_.notify_all();
    changed_.wait(lock, [this] { return allowed_ != 0; });
    is_reached_ = false;
    if (allowed_ > 0) --allowed_;
  }
  void open() { allow(-1); }
  void close() { allow(0); }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_reached_; });
  }
  void let_one_pass() {
    allow(1);
    wait_until_reached();
  }

 private:
  void allow(int passes) {
    const std::lock_guard lock(mutex_);
    allowed_ = passes;
    if (passes != 0) is_reached_ = false;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = -1;  // passes; -1: all
  bool is_reached_ = false;
};

// The session must outlive both.
inline std::shared_ptr<const Processor> borrow_processor(const Session& session) {
  return {&session.generator->processor(), [](const Processor*) {}};
}

// The session's model, whose passes go through the gate.
inline ModelPtr watch_passes(const Session& session, Gate& gate) {
  return std::make_shared<WatchedModel>(session.model, [&gate](const at::Tensor&) { gate.pass(); });
}

}  // namespace vlm::infer
