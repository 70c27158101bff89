// One model that is served, in memory: the base, or one with an adapter.
//
//   Session, EngineOptions ─► ServedModel: an engine with a thread of its own, a maker of prompts
//
// An adapter is merged into a copy of the weights that it changes; what it leaves alone is mapped
// from the same file, where it is stored as it is multiplied.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "infer/engine/engine.h"
#include "infer/server/models/prompt_maker.h"
#include "infer/session.h"
#include "infer/structured/rule_compiler.h"

namespace vlm::infer {

class ServedModel {
 public:
  ServedModel(std::string id, std::string parent, Session session, const EngineOptions& engine,
              const ApiLimits& limits);

  const std::string& id() const { return id_; }
  const std::string& parent() const { return parent_; }  // of an adapter its base
  const std::string& fingerprint() const { return fingerprint_; }

  Engine& engine() { return *engine_; }
  // What answers must follow, for a constraint that needs a grammar. Takes tens of milliseconds
  // where it is new. Throws ApiError for what can't be kept exactly.
  std::shared_ptr<const AnswerGrammar> compile(const Constraint& constraint);
  const PromptMaker& maker() const { return maker_; }
  const GenerationOptions& generation() const { return session_.generation; }
  const Processor& processor() const { return *session_.processor; }
  std::int64_t context() const { return session_.generator->max_positions(); }
  const Session& session() const { return session_; }

 private:
  std::string id_, parent_;
  Session session_;
  PromptMaker maker_;
  std::string fingerprint_;  // digest of the weights as they are multiplied
  std::unique_ptr<Engine> engine_;
};

}  // namespace vlm::infer
