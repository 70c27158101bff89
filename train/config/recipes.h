// Configs to start from: the YAML files of configs/, embedded in the program.
//
//   name ─► find_recipe ─► Recipe: its text with comments ─► save_recipe ─► a file of the user
//
// They are embedded at build time (cmake/embed_recipes.cmake), so that an installed program has
// them too.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace vlm::train {

struct Recipe {
  std::string name;
  std::string text;

  // The first comment of the text, without its full stop.
  std::string description() const;
};

// All recipes, sorted by name.
const std::vector<Recipe>& recipes();

// Throws Error that lists all names when there is none of this name.
const Recipe& find_recipe(const std::string& name);

// Throws Error for a file that exists, and for a file name that isn't read as YAML.
void save_recipe(const Recipe& recipe, const std::filesystem::path& path);

}  // namespace vlm::train
