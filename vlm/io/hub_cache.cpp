#include "vlm/io/hub_cache.h"

#include <cstdlib>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool is_name(const std::string& text) {
  return !text.empty() && text.front() != '.' && text.front() != '-' &&
         text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
             std::string::npos;
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

// The snapshot of a cached repository at a branch, tag or commit.
fs::path find_snapshot(const fs::path& repository, const std::string& revision,
                       const std::string& model) {
  const fs::path ref = repository / "refs" / revision;
  const std::string commit = fs::exists(ref) ? trimmed(load_text(ref, 1000)) : revision;
  const fs::path snapshot = repository / "snapshots" / commit;
  if (is_name(commit) && fs::is_directory(snapshot)) return snapshot;
  throw Error({.what = concat("revision '", revision, "' is not in the cache"),
               .where = model,
               .got = concat("no folder ", snapshot.string())});
}

}  // namespace

fs::path hub_cache_folder() {
  if (const auto cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const auto home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const auto xdg = environment("XDG_CACHE_HOME"); !xdg.empty()) {
    return fs::path(xdg) / "huggingface/hub";
  }
  return fs::path(environment("HOME")) / ".cache/huggingface/hub";
}

fs::path resolve_model(const std::string& model) {
  if (fs::is_directory(model)) return model;
  if (fs::exists(model)) {
    throw Error({.what = "a model is a folder, this is a file", .where = model});
  }
  const auto at = model.find('@');
  const std::string name = model.substr(0, at);
  const std::string revision = at == std::string::npos ? "main" : model.substr(at + 1);
  const auto slash = name.find('/');
  const bool is_repository = slash != std::string::npos && is_name(name.substr(0, slash)) &&
                             is_name(name.substr(slash + 1)) && !revision.empty() &&
                             revision.front() != '/' && revision.find("..") == std::string::npos;
  if (!is_repository) throw Error({.what = "no such model folder", .where = model});
  const fs::path repository =
      hub_cache_folder() / concat("models--", name.substr(0, slash), "--", name.substr(slash + 1));
  if (fs::is_directory(repository)) return find_snapshot(repository, revision, model);
  throw Error({.what = "no such model",
               .where = model,
               .got = concat("neither a folder nor ", repository.string()),
               .hint = "HF_HUB_CACHE and HF_HOME name the cache"});
}

}  // namespace vlm
