// Command-line options of every command for choosing the model and how it is spoken to.
#pragma once

#include "infer/session.h"
#include "vlm/core/json.h"

namespace CLI {
class App;
}  // namespace CLI

namespace vlm::infer {

// Declares --model, --adapter, --template-arg, --date, --kv-dtype and --cuda-graph.
void declare_model(CLI::App& command, ModelChoice& choice);

// What was given for the chat template, for a run's journal.
OrderedJson describe_chat(const TemplateOptions& options);

}  // namespace vlm::infer
