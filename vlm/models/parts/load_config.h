// A family's config from a checkpoint folder, for its processor.
#pragma once

#include <filesystem>

#include "vlm/core/json.h"

namespace vlm {

// Throws Error naming config.json as load_json and Config::parse do.
template <class Config>
Config load_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  return Config::parse(load_json(path), path.string());
}

}  // namespace vlm
