#include "vlm/models/model_files.h"

#include <set>
#include <string>

#include "vlm/io/checkpoint.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/weight_files.h"

namespace vlm {

namespace fs = std::filesystem;

std::vector<fs::path> model_files(const fs::path& folder) {
  std::vector<fs::path> files;
  bool has_weights = is_gguf_folder(folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_side_file(entry.path())) files.push_back(entry.path());
    has_weights = has_weights || is_weights_file(entry.path());
  }
  if (has_weights) {
    const std::vector<fs::path> weights = open_weights(folder)->paths();
    files.insert(files.begin(), weights.begin(), weights.end());
  }
  return files;
}

namespace {

// Code that transformers runs for a model_type which isn't its own (trust_remote_code). It is never
// run here, but config.json of the folder names it.
bool is_remote_code(const std::string& name) {
  if (!name.ends_with(".py")) return false;
  return name.starts_with("modeling_") || name.starts_with("configuration_") ||
         name.starts_with("tokenization_") || name == "conversation.py";
}

}  // namespace

bool is_side_file(const fs::path& path) {
  static const std::set<std::string> names = {"config.json",
                                              "generation_config.json",
                                              "preprocessor_config.json",
                                              "processor_config.json",
                                              "video_preprocessor_config.json",
                                              "chat_template.json",
                                              "chat_template.jinja",
                                              "tokenizer.json",
                                              "tokenizer.model",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt"};
  const std::string name = path.filename().string();
  return names.count(name) > 0 || is_remote_code(name);
}

bool is_model_file(const fs::path& path) {
  return is_side_file(path) || is_weights_file(path);
}

}  // namespace vlm
