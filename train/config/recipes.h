// Configs to begin with: the YAML files of configs/, which the program carries along.
//
//   name ─► find_recipe ─► Recipe: its text with comments ─► save_recipe ─► a config of the user's
//
// They are embedded when the program is built (cmake/embed_recipes.cmake), so that an installed
// program has them without the tree.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vlm::train {

struct Recipe {
  std::string name;
  std::string text;

  // The first comment of its text, without the full stop.
  std::string description() const;
};

// In the order of their names.
const std::vector<Recipe>& recipes();

// Throws Error naming all of them for another name.
const Recipe& find_recipe(const std::string& name);

// Throws Error for a file that is there already, and for a name that isn't read as YAML.
void save_recipe(const Recipe& recipe, const std::filesystem::path& path);

}  // namespace vlm::train
