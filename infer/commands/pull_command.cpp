#include "infer/commands/pull_command.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm::infer {

namespace {

struct PullOptions {
  std::string name, type = "model";
  DatasetChoice choice;
};

int run_pull(const PullOptions& options) {
  if (options.type == "model") {
    print_result(pull_model(options.name, hub_options()).string() + "\n");
    return 0;
  }
  auto name = parse_hub_name(options.name);
  if (!name) {
    throw Error({.what = "not the name of a data set on a hub",
                 .got = concat("'", options.name, "'"),
                 .wanted = "org/name or org/name@revision"});
  }
  name->type = HubType::kDataset;
  print_result(pull_dataset(*name, options.choice, hub_options()).folder.string() + "\n");
  return 0;
}

}  // namespace

std::function<int()> add_pull(CLI::App& app) {
  auto options = std::make_shared<PullOptions>();
  CLI::App* command = app.add_subcommand(
      "pull", "Fetch a model or data set into the Hugging Face cache and print its folder");
  command->add_option("name", options->name, "org/name, or org/name@revision")
      ->required()
      ->check(not_empty());
  command->add_option("--repo-type", options->type, "model or dataset")
      ->check(CLI::IsMember({"model", "dataset"}))
      ->capture_default_str();
  command->add_option("--config-name", options->choice.config,
                      "Of a data set: which of its configs (default: its default one)");
  command->add_option("--split", options->choice.split, "Of a data set: a split, or all")
      ->capture_default_str();
  return [options] { return run_pull(*options); };
}

}  // namespace vlm::infer
