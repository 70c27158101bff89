// `vlm finetune`, `vlm plan`, `vlm inspect-data` and `vlm merge`: their options and their code.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "train/evaluation/answer_function.h"
#include "vlm/nn/runtime.h"

namespace CLI {
class App;
}

namespace vlm::train {

// Declares the commands below `app`; `answer` generates in evaluation. The functions returned run
// them after parsing and return the exit code: 0 done, 3 data that can't be trained on, 130
// interrupted by Ctrl-C, 143 by SIGTERM. `runtime` is filled by the options that every command
// shares.
std::map<std::string, std::function<int()>> add_commands(CLI::App& app,
                                                         const RuntimeOptions& runtime,
                                                         const AnswerFunction& answer);

}  // namespace vlm::train
