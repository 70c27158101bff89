// `vlm caption`, `vqa`, `evaluate` and `gather`: options of the command line, and what they run.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::infer {

// Declares the commands below `app`. The functions returned run them after parsing and return the
// exit code: 0 done, 3 done but some items failed or (gather) something is missing, 130
// interrupted.
std::map<std::string, std::function<int()>> add_batch_commands(CLI::App& app,
                                                               const RuntimeOptions& runtime);

}  // namespace vlm::infer
