#include "train/config/recipes.h"

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::train {

namespace fs = std::filesystem;

std::string Recipe::description() const {
  std::string line = text.substr(0, text.find('\n'));
  line.erase(0, line.find_first_not_of("# "));
  if (line.ends_with('.')) line.pop_back();
  return line;
}

const Recipe& find_recipe(const std::string& name) {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    names.push_back(recipe.name);
  }
  const auto nearest = nearest_name(name, names);
  throw Error({.what = "no such recipe",
               .got = concat("'", name, "'"),
               .wanted = join(names),
               .hint = nearest ? concat("did you mean '", *nearest, "'?") : ""});
}

void save_recipe(const Recipe& recipe, const fs::path& path) {
  if (path.extension() != ".yaml" && path.extension() != ".yml") {
    throw Error({.what = "recipes are YAML, which configs are read as by their name",
                 .where = path.string(),
                 .wanted = "a name that ends with .yaml"});
  }
  std::error_code code;
  if (fs::exists(fs::symlink_status(path, code))) {
    throw Error({.what = "the file is there already",
                 .where = path.string(),
                 .hint = "choose another name for the config"});
  }
  save_text(path, recipe.text);
}

}  // namespace vlm::train
