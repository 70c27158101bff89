// A caller of an engine: what it was told.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infer/engine/engine.h"

namespace vlm::infer {

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

}  // namespace vlm::infer
