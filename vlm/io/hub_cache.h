// Where a model's folder is: a path, or "org/name[@revision]" in the local Hugging Face cache.
//
// The cache is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub; models--org--name/refs/<revision> names the commit, snapshots/<commit>
// is the folder. Nothing is downloaded here.
#pragma once

#include <filesystem>
#include <string>

namespace vlm {

// The cache folder that the environment names.
std::filesystem::path hub_cache_folder();

// The folder of `model`. Throws Error that lists the places looked at when there is none.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace vlm
