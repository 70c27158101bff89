// `vlm mcp`: the model as a tool of agents, on standard input and output (docs/serving.md).
#pragma once

#include <functional>
#include <map>
#include <string>

#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::infer {

// Declares the command below `app`. The function returned runs it after parsing and returns the
// exit code: 0 after the end of the input, or a signal.
std::map<std::string, std::function<int()>> add_mcp_command(CLI::App& app,
                                                            const RuntimeOptions& runtime);

}  // namespace vlm::infer
