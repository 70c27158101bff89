#include "vlm/models/gguf/gguf_folder.h"

#include <algorithm>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/sha256.h"
#include "vlm/io/file_digest.h"
#include "vlm/io/gguf/gguf_parts.h"
#include "vlm/io/hub/hub_cache.h"
#include "vlm/io/hub/hub_pull.h"
#include "vlm/models/gguf/gguf_config.h"
#include "vlm/models/gguf/gguf_tokenizer.h"
#include "vlm/models/gguf/gguf_weights.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr int kLayout = 2;  // of what is made; another number has all folders made anew

fs::path cache_folder() {
  const std::string chosen = environment_value("XDG_CACHE_HOME");
  if (!chosen.empty()) return fs::path(chosen) / "vlm" / "gguf";
  const std::string home = environment_value("HOME");
  return fs::path(home.empty() ? "/tmp" : home) / ".cache" / "vlm" / "gguf";
}

bool is_vision_name(const fs::path& path) {
  return is_gguf(path) && path.filename().string().find("mmproj") != std::string::npos;
}

std::vector<fs::path> list_gguf(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const auto part = parse_gguf_part(entry.path());
    const bool is_later = part && part->number > 1;  // it goes with its model's first
    if (is_gguf(entry.path()) && !is_later) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

std::vector<std::string> names_of(const std::vector<fs::path>& paths) {
  std::vector<std::string> names;
  for (const fs::path& path : paths) names.push_back(path.filename().string());
  return names;
}

// The encoder's file that lies beside a model: that of its own name behind "mmproj-", or the only
// one; empty: there is none.
fs::path find_vision(const fs::path& model) {
  const fs::path folder = fs::absolute(model).parent_path();
  const auto part = parse_gguf_part(model);
  for (const std::string& name :
       {model.filename().string(), part ? part->model + ".gguf" : std::string()}) {
    if (!name.empty() && fs::exists(folder / ("mmproj-" + name)))
      return folder / ("mmproj-" + name);
  }
  std::vector<fs::path> found = list_gguf(folder);
  std::erase_if(found, [](const fs::path& path) { return !is_vision_name(path); });
  if (found.empty()) return {};
  if (found.size() == 1) return found[0];
  throw Error({.what = "several files with a vision encoder lie beside the model",
               .where = model.string(),
               .got = join(names_of(found)),
               .wanted = "one of them, by --mmproj",
               .hint = "or the model alone in a folder, to leave pictures out"});
}

bool shows_pictures(const GgufHeader& text) {
  const Json& tokens = text.list("tokenizer.ggml.tokens");
  return std::ranges::count(tokens, Json("<image>")) > 0;
}

std::vector<float> frequency_factors(const GgufFile& file) {
  if (file.header().tensors.count("rope_freqs.weight") == 0) return {};
  const at::Tensor values = file.values("rope_freqs.weight").to(at::kFloat).contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()};
}

void fill_folder(const GgufFile& text, const GgufFile* vision, const fs::path& folder) {
  std::vector<SideFile> files = make_gguf_tokenizer(text.header());
  const std::vector<SideFile> configs = make_gguf_configs(
      text.header(), vision ? &vision->header() : nullptr, frequency_factors(text));
  files.insert(files.end(), configs.begin(), configs.end());
  make_folders(folder);
  fs::create_symlink(text.path(), folder / kGgufText);
  if (vision) fs::create_symlink(vision->path(), folder / kGgufVision);
  for (const SideFile& file : files) save_text(folder / file.name, file.text);
}

// Makes the folder elsewhere and moves it to its place, unless another process was quicker, and
// removes those of older states of the same files, whose names begin alike.
void make_folder(const GgufFile& text, const GgufFile* vision, const fs::path& folder,
                 const std::string& begin) {
  const fs::path beside = temporary_path(folder);
  std::error_code ignored;
  try {
    fill_folder(text, vision, beside);
    fs::rename(beside, folder, ignored);
  } catch (...) {
    fs::remove_all(beside, ignored);
    throw;
  }
  fs::remove_all(beside, ignored);
  for (const auto& entry : fs::directory_iterator(folder.parent_path(), ignored)) {
    const bool is_older = entry.path().filename().string().starts_with(begin);
    if (is_older && entry.path() != folder) fs::remove_all(entry.path(), ignored);
  }
}

fs::path readable(const fs::path& path) {
  if (!fs::exists(path)) throw Error({.what = "no such file", .where = path.string()});
  return fs::absolute(path).lexically_normal();
}

}  // namespace

bool is_gguf_folder(const fs::path& folder) {
  return fs::is_symlink(folder / kGgufText);
}

fs::path open_gguf_folder(const fs::path& model, const fs::path& vision) {
  const GgufFile text(readable(model));
  std::unique_ptr<GgufFile> encoder;
  if (!vision.empty()) {
    encoder = std::make_unique<GgufFile>(readable(vision));
  } else if (const fs::path found = shows_pictures(text.header()) ? find_vision(model) : fs::path();
             !found.empty()) {
    encoder = std::make_unique<GgufFile>(readable(found));
    log_info(concat("pictures go through ", found.string()));
  }
  std::string names, states = concat("layout ", kLayout, "\n");
  for (const GgufFile* file : {&text, static_cast<const GgufFile*>(encoder.get())}) {
    if (!file) continue;
    names += file->path().string() + "\n";
    for (const fs::path& path : file->paths()) states += stamp_file(path) + "\n";
  }
  const std::string begin =
      concat(model.stem().string(), "-", sha256_hex(names).substr(0, 16), "-");
  const fs::path folder = cache_folder() / (begin + sha256_hex(states).substr(0, 16));
  if (fs::exists(folder)) return folder;
  try {
    make_folder(text, encoder.get(), folder, begin);
  } catch (const fs::filesystem_error& error) {
    throw Error({.what = "can't keep what the model's keys say",
                 .where = folder.string(),
                 .got = error.code().message(),
                 .hint = "XDG_CACHE_HOME names another place for caches"});
  }
  return folder;
}

fs::path find_model_folder(const std::string& model, const std::string& vision) {
  if (is_gguf(model)) return open_gguf_folder(model, vision);
  std::error_code ignored;
  const bool is_bare =
      fs::is_directory(model, ignored) && !fs::exists(fs::path(model) / "config.json", ignored);
  std::vector<fs::path> found = is_bare ? list_gguf(model) : std::vector<fs::path>();
  std::erase_if(found, is_vision_name);
  if (found.size() == 1) return open_gguf_folder(found[0], vision);
  if (found.size() > 1) {
    throw Error({.what = "several GGUF files in the folder",
                 .where = model,
                 .got = join(names_of(found)),
                 .wanted = "the path of one of them"});
  }
  if (!vision.empty()) {
    throw Error({.what = "a vision encoder's file goes with a GGUF model",
                 .where = "--mmproj",
                 .got = model,
                 .wanted = "a .gguf file by --model"});
  }
  return find_or_pull_model(model);
}

}  // namespace vlm
