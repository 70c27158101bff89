#include "vlm/models/model_files.h"

#include <set>
#include <string>

#include "vlm/io/checkpoint.h"

namespace vlm {

namespace fs = std::filesystem;

std::vector<fs::path> model_files(const fs::path& folder) {
  std::vector<fs::path> files = Checkpoint(folder).paths();
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_side_file(entry.path())) files.push_back(entry.path());
  }
  return files;
}

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
  return names.count(path.filename().string()) > 0;
}

bool is_model_file(const fs::path& path) {
  return is_side_file(path) || is_weights_file(path);
}

}  // namespace vlm
