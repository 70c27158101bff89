// Opens what every inference command needs: model, adapter, processor, generation defaults.
#pragma once

#include <memory>
#include <string>

#include "infer/generator.h"
#include "infer/structured/rule_compiler.h"
#include "vlm/nn/runtime.h"
#include "vlm/text/chat_template.h"

namespace vlm::infer {

struct ModelChoice {
  std::string model;    // folder, or org/name (in the Hugging Face cache, or pulled into it)
  std::string adapter;  // PEFT adapter folder; empty: none
  TemplateOptions chat = {};
  std::string kv_dtype = "auto";  // choose_kv_storage
  bool records_steps = false;     // on a GPU: decode steps are recorded and replayed
};

struct Session {
  ModelPtr model;
  std::unique_ptr<Generator> generator;
  GenerationOptions generation;         // of the checkpoint
  std::shared_ptr<RuleCompiler> rules;  // for the model's tokenizer; may outlive the session
  double load_s = 0;
};

// Loads everything. An adapter is merged into the weights. Throws Error for whatever doesn't fit.
Session open_session(const ModelChoice& choice, const RuntimeOptions& runtime);

}  // namespace vlm::infer
