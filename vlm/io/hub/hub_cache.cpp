#include "vlm/io/hub/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/hub/hub_files.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostListingBytes = 64 << 20;

// Of an organisation or a model. The hub allows no "--", so that folders of the cache are unique.
bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 96 && text.front() != '.' && text.front() != '-' &&
         text.find("--") == std::string::npos && text.find("..") == std::string::npos &&
         text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
             std::string::npos;
}

// Of a branch, tag or commit: git's rules, or stricter.
bool is_revision(const std::string& text) {
  if (text.empty() || text.size() > 255 || text.front() == '/' || text.back() == '/') return false;
  for (const char* no : {"..", "//", "/.", "@{"}) {
    if (text.find(no) != std::string::npos) return false;
  }
  const bool is_plain = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7f && !std::strchr("\\~^:?*[", c);
  });
  return is_plain && text.front() != '.' && text.front() != '-';
}

// The commit that a cached ref names, else the revision itself.
std::string commit_of(const fs::path& repository, const std::string& revision) {
  const fs::path ref = repository / "refs" / revision;
  return fs::is_regular_file(ref) ? std::string(trimmed(load_text(ref, 1000))) : revision;
}

bool has(const fs::path& folder, const std::string& name) {
  std::error_code dangling;
  return fs::is_regular_file(folder / name, dangling);
}

// Whether the snapshot's config.json is that of a model that sees. One that can't be read counts as
// such: loading says what is wrong with it.
bool may_see(const fs::path& snapshot) {
  const fs::path path = snapshot / "config.json";
  if (!has(snapshot, "config.json")) return true;
  const Json config = Json::parse(load_text(path), nullptr, false);
  return !config.is_object() || config.contains("vision_config");
}

// The shards that the snapshot's index names and the snapshot lacks.
std::vector<std::string> missing_shards(const fs::path& snapshot) {
  std::vector<std::string> missing;
  const fs::path index = snapshot / kWeightIndex;
  for (const std::string& shard : shard_names(load_text(index), index.string())) {
    if (!has(snapshot, shard)) missing.push_back(shard);
  }
  return missing;
}

// What the Python client's listing of the commit names and we would have fetched. A listing that
// can't be read says nothing.
std::vector<std::string> listed_files(const fs::path& snapshot) {
  const fs::path path =
      snapshot.parent_path().parent_path() / "trees" / (snapshot.filename().string() + ".json");
  if (!fs::exists(path)) return {};
  const Json listing = Json::parse(load_text(path, kMostListingBytes), nullptr, false);
  if (!listing.is_object() || !listing.contains("files") || !listing["files"].is_object()) {
    return {};
  }
  std::vector<std::string> names;
  for (const auto& [name, entry] : listing["files"].items()) {
    if (is_needed_file(name)) names.push_back(name);
  }
  return names;
}

}  // namespace

std::string HubName::api_path() const {
  return concat("/api/", type == HubType::kDataset ? "datasets/" : "models/", repository());
}

std::string HubName::page_path() const {
  return concat(type == HubType::kDataset ? "/datasets/" : "/", repository());
}

std::optional<HubName> parse_hub_name(const std::string& model) {
  const auto at = model.find('@');
  const std::string repository = model.substr(0, at);
  const auto slash = repository.find('/');
  if (slash == std::string::npos) return std::nullopt;
  HubName name{.org = repository.substr(0, slash), .name = repository.substr(slash + 1)};
  if (at != std::string::npos) name.revision = model.substr(at + 1);
  if (!is_name(name.org) || !is_name(name.name) || !is_revision(name.revision)) {
    return std::nullopt;
  }
  return name;
}

std::string environment_value(const char* name) {
  const char* value = std::getenv(name);
  const std::string text = value ? value : "";
  const char* home = std::getenv("HOME");
  return text.starts_with("~/") && home ? home + text.substr(1) : text;
}

fs::path hub_home_folder() {
  if (const auto home = environment_value("HF_HOME"); !home.empty()) return home;
  if (const auto xdg = environment_value("XDG_CACHE_HOME"); !xdg.empty()) {
    return fs::path(xdg) / "huggingface";
  }
  return fs::path(environment_value("HOME")) / ".cache/huggingface";
}

fs::path hub_cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {  // the second: its old name
    if (const auto cache = environment_value(name); !cache.empty()) return cache;
  }
  return hub_home_folder() / "hub";
}

fs::path repository_folder(const fs::path& cache, const HubName& name) {
  const char* kind = name.type == HubType::kDataset ? "datasets--" : "models--";
  return cache / concat(kind, name.org, "--", name.name);
}

std::optional<fs::path> find_snapshot(const fs::path& cache, const HubName& name) {
  const fs::path repository = repository_folder(cache, name);
  const std::string commit = commit_of(repository, name.revision);
  const fs::path snapshot = repository / "snapshots" / commit;
  if (is_name(commit) && fs::is_directory(snapshot)) return snapshot;
  return std::nullopt;
}

std::vector<std::string> missing_files(const fs::path& snapshot) {
  std::vector<std::string> missing;
  const auto want_one_of = [&](const std::vector<std::string>& names) {
    const bool is_there = std::any_of(names.begin(), names.end(),
                                      [&](const auto& name) { return has(snapshot, name); });
    if (!is_there) missing.push_back(join(names, " or "));
  };
  want_one_of({"config.json"});
  want_one_of({"tokenizer.json", "tokenizer.model", "merges.txt"});
  if (may_see(snapshot)) {
    want_one_of({"preprocessor_config.json", "processor_config.json"});
  }
  if (has(snapshot, kWeights) || !has(snapshot, kWeightIndex)) {
    want_one_of({kWeights});
  } else {
    const auto shards = missing_shards(snapshot);
    missing.insert(missing.end(), shards.begin(), shards.end());
  }
  for (const std::string& name : listed_files(snapshot)) {
    const bool is_told = std::find(missing.begin(), missing.end(), name) != missing.end();
    if (!is_told && !has(snapshot, name)) missing.push_back(name);
  }
  return missing;
}

fs::path resolve_model(const std::string& model) {
  if (fs::is_directory(model)) return model;
  if (fs::exists(model)) {
    throw Error({.what = "a model is a folder, this is a file", .where = model});
  }
  const auto name = parse_hub_name(model);
  if (!name) throw Error({.what = "no such model folder", .where = model});
  const fs::path cache = hub_cache_folder();
  if (const auto snapshot = find_snapshot(cache, *name)) return *snapshot;
  const fs::path repository = repository_folder(cache, *name);
  if (fs::is_directory(repository)) {
    const fs::path wanted = repository / "snapshots" / commit_of(repository, name->revision);
    throw Error({.what = concat("revision '", name->revision, "' is not in the cache"),
                 .where = model,
                 .got = concat("no folder ", wanted.string())});
  }
  throw Error({.what = "no such model",
               .where = model,
               .got = concat("neither a folder nor ", repository.string()),
               .hint = "HF_HUB_CACHE and HF_HOME name the cache"});
}

}  // namespace vlm
