// `vlm serve`: an HTTP server with OpenAI's API (docs/serving.md).
#pragma once

#include <functional>
#include <map>
#include <string>

#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::infer {

// The folder of the tree's small model, beside the sources or where it is installed. Throws Error
// when it isn't there.
std::string find_default_model();

// Declares the command below `app`. The function returned runs it after parsing and returns the
// exit code: 0 after a signal that ended it.
std::map<std::string, std::function<int()>> add_serve_command(CLI::App& app,
                                                              const RuntimeOptions& runtime);

}  // namespace vlm::infer
