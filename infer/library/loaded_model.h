// What the copies of a Model of the library share: the engine, and how conversations become its
// requests.
//
//   Conversation, AskOptions ─► prepare (pictures decoded, prompt made) ─► Engine ─► Answer
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "infer/engine/call_threads.h"
#include "infer/engine/engine.h"
#include "infer/session.h"
#include "infer/vlm.h"

namespace vlm {

// A prompt with its media, ready for the engine.
struct Model::Prepared {
  infer::EngineRequest request;
  std::shared_ptr<infer::ShownMedia> media;

  std::vector<SeenVideo> seen() const {
    std::vector<SeenVideo> videos;
    for (const infer::WatchedVideo& one : media->seen()) {
      videos.push_back({one.duration_s, one.times_s, one.dropped_duplicates, one.damaged_frames});
    }
    return videos;
  }
};

struct Model::Loaded {
  infer::Session session;
  std::optional<infer::Engine> engine;
  std::optional<infer::CallThreads> threads;  // that prepare what ask_async asks

  const Processor& processor() const { return session.generator->processor(); }
  // The checkpoint's options, with those that were set in their place. Throws Error.
  infer::GenerationOptions generation_for(const AskOptions& options) const;
  Prepared prepare(const Conversation& conversation, infer::Request request);
  std::vector<Answer> ask(const Conversation& conversation, const AskOptions& options);
  void begin(const Conversation& conversation, const AskOptions& options,
             const std::shared_ptr<std::promise<Answer>>& promise, infer::CallThreads::Place place);
  infer::RequestAnswer choose(const Conversation& conversation, infer::Request request);
};

}  // namespace vlm
