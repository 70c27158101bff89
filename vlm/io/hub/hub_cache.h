// Where a model's folder is: a path, or "org/name[@revision]" in the local Hugging Face cache.
//
// The cache is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub. Below models--org--name (datasets--org--name for data sets) lie
//   blobs/<hash>                  every content once
//   snapshots/<commit>/<file>     links to the blobs
//   refs/<revision>               the commit of a branch or tag
// as huggingface_hub 1 and 2 lay them out. Nothing is downloaded here (vlm/io/hub/hub_pull does
// that).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace vlm {

enum class HubType { kModel, kDataset };

// "org/name[@revision]" in its parts; the revision is a branch, a tag or a commit.
struct HubName {
  std::string org, name;
  std::string revision = "main";
  HubType type = HubType::kModel;

  std::string repository() const { return org + "/" + name; }
  // Paths after the endpoint: "/api/datasets/org/name" and "/datasets/org/name"; of a model
  // "/api/models/org/name" and "/org/name".
  std::string api_path() const;
  std::string page_path() const;
};

// Nothing when `model` is no such name. The type is kModel. Only names that the hub allows are
// accepted, so none can lead out of the cache folder.
std::optional<HubName> parse_hub_name(const std::string& model);

// An environment variable, "" when there is none; a leading "~/" is the home folder.
std::string environment_value(const char* name);

// HF_HOME or its default: where the cache and the token are.
std::filesystem::path hub_home_folder();

// The cache folder that the environment names.
std::filesystem::path hub_cache_folder();

// <cache>/models--org--name, <cache>/datasets--org--name
std::filesystem::path repository_folder(const std::filesystem::path& cache, const HubName& name);

// The snapshot of a cached repository, whole or not; nothing when there is none.
std::optional<std::filesystem::path> find_snapshot(const std::filesystem::path& cache,
                                                   const HubName& name);

// What a snapshot lacks of a checkpoint that can be loaded: config.json, weights (every shard),
// tokenizer, the preprocessor of a model that sees, and what a listing of the commit names beside
// them, if the Python client has left one. Empty: it is whole.
std::vector<std::string> missing_files(const std::filesystem::path& snapshot);

// The folder of `model`, whole or not. Throws Error that lists the places looked at when there is
// none.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace vlm
