// `vlm pull org/name[@revision]`: a model from the hub into the local Hugging Face cache.
//
// Prints the snapshot folder on stdout; everything else is for people and goes to stderr.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace vlm::infer {

// Declares the command; the function returned runs it and returns the exit code.
std::function<int()> add_pull(CLI::App& app);

}  // namespace vlm::infer
