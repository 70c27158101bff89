// `vlm export`: a model in the files of other programs; `vlm quantize`: a checkpoint in fewer bits.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::infer {

// Declares the commands below `app`; the functions run them as those of commands.h.
std::map<std::string, std::function<int()>> add_convert_commands(CLI::App& app,
                                                                 const RuntimeOptions& runtime);

}  // namespace vlm::infer
