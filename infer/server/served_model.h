// The models that are served: the base, and one for each adapter by name.
//
//   ModelSource, EngineOptions ─► load_served_models ─► ServedModels ─► find("name")
//
// Each has an engine with a thread of its own. An adapter is merged into a copy of the weights that
// it changes; what it leaves alone is mapped from the same file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infer/engine/engine.h"
#include "infer/server/prompt_maker.h"
#include "infer/session.h"
#include "infer/structured/rule_compiler.h"
#include "vlm/models/picture_cache.h"

namespace vlm::infer {

struct AdapterSource {
  std::string name, path;
};

struct ModelSource {
  ModelChoice choice;
  std::vector<std::string> names;  // the first is its id; empty: by the model's name
  std::vector<AdapterSource> adapters;
  FeatureCacheChoice features;  // on disk
};

class ServedModel {
 public:
  struct Identity {
    std::string id, parent;  // of an adapter its base
    std::vector<std::string> aliases;
  };

  ServedModel(Identity identity, Session session, const EngineOptions& engine,
              const ApiLimits& limits);

  const std::string& id() const { return identity_.id; }
  const std::string& parent() const { return identity_.parent; }
  const std::vector<std::string>& aliases() const { return identity_.aliases; }
  bool answers_to(const std::string& name) const;
  const std::string& fingerprint() const { return fingerprint_; }
  std::int64_t created() const { return created_; }

  Engine& engine() { return *engine_; }
  // What answers must follow; null: nothing. Takes tens of milliseconds where it is new. Throws
  // ApiError for what can't be kept exactly.
  std::shared_ptr<const AnswerGrammar> compile(const Constraint& constraint);
  std::size_t grammar_bytes() const { return session_.rules->cached_bytes(); }
  const PromptMaker& maker() const { return maker_; }
  const GenerationOptions& generation() const { return session_.generation; }
  const Processor& processor() const { return session_.generator->processor(); }
  std::int64_t context() const { return session_.generator->max_positions(); }
  const VisionLanguageModel& model() const { return *session_.model; }

 private:
  Identity identity_;
  Session session_;
  PromptMaker maker_;
  std::string fingerprint_;  // digest of the weights as they are multiplied
  std::int64_t created_ = 0;
  std::unique_ptr<Engine> engine_;
};

using ServedModels = std::vector<std::unique_ptr<ServedModel>>;  // the base first

// Throws Error for whatever can't be loaded, and for a name that is given twice.
ServedModels load_served_models(const ModelSource& source, const RuntimeOptions& runtime,
                                const EngineOptions& engine, const ApiLimits& limits);

}  // namespace vlm::infer
