#include "infer/commands/pull_command.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "vlm/core/log.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm::infer {

std::function<int()> add_pull(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("pull", "Fetch a model into the Hugging Face cache and print its folder");
  command->add_option("model", *model, "org/name, or org/name@revision")
      ->required()
      ->check(not_empty());
  return [model] {
    print_result(pull_model(*model, hub_options()).string() + "\n");
    return 0;
  };
}

}  // namespace vlm::infer
