#include "infer/commands/pull_command.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "vlm/io/hub/hub_pull.h"

namespace vlm::infer {

std::function<int()> add_pull(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("pull", "Fetch a model into the Hugging Face cache and print its folder");
  command->add_option("model", *model, "org/name, or org/name@revision")->required();
  return [model] {
    const std::string folder = pull_model(*model, hub_options()).string();
    std::printf("%s\n", folder.c_str());
    return 0;
  };
}

}  // namespace vlm::infer
