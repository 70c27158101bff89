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
  // Folder, GGUF file, or org/name (in the Hugging Face cache, or pulled into it).
  std::string model;
  std::string mmproj;   // of a GGUF model, the file with its vision encoder; empty: that beside it
  std::string adapter;  // PEFT adapter folder; empty: none
  TemplateOptions chat = {};
  std::string kv_dtype = "auto";  // choose_kv_storage
  bool records_steps = false;     // on a GPU: decode steps are recorded and replayed
};

struct Session {
  ModelPtr model;
  std::shared_ptr<const Processor> processor;
  std::unique_ptr<Generator> generator;
  GenerationOptions generation;         // of the checkpoint
  std::shared_ptr<RuleCompiler> rules;  // for the model's tokenizer; may outlive the session
  double load_s = 0;
};

// Loads everything. An adapter is merged into the weights. Throws Error for whatever doesn't fit.
// `beside`: a session of the same base, whose processor and compiled rules this one shares.
Session open_session(const ModelChoice& choice, const RuntimeOptions& runtime,
                     const Session* beside = nullptr);

}  // namespace vlm::infer
