// `vlm generate` and `inspect`: options of the command line, and what they run. The commands that
// write rows are in batch_commands.h and are declared with these.
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
// exit code: 0 done, 3 done but some items failed, 130 interrupted.
std::map<std::string, std::function<int()>> add_commands(CLI::App& app,
                                                         const RuntimeOptions& runtime);

}  // namespace vlm::infer
