// `vlm finetune`: options of the command line, and the run they describe.
#pragma once

#include <functional>

#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::train {

// Declares the command below `app`. The function returned runs it, after parsing, and returns the
// exit code: 0 done, 130 interrupted. `runtime` is filled by the options that every command shares.
std::function<int()> add_finetune_command(CLI::App& app, const RuntimeOptions& runtime);

}  // namespace vlm::train
