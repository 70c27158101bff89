// A config file that people write, JSON or YAML, with the places of its keys.
//
//   lora.yaml ─► load_config_text ─► ConfigText: values, placed(error)
//
// A file is YAML by its suffix (.yaml, .yml). It is read by the core schema of YAML 1.2, so `yes`
// and `no` are texts; 1e-4 is a number. Anchors, aliases and merge keys (<<) work; several
// documents, tags and keys that aren't plain text are refused. Comments are allowed and not kept.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {

struct ConfigText {
  std::string file;
  OrderedJson values;
  // Line and column ("12:3") of each key and element by its path in errors: "video: max_frames",
  // "train_files[0]". Empty for JSON.
  std::map<std::string, std::string> places = {};

  // The same error with the file, and the place of the key that it names, in front. The error's
  // own place may begin with the file already.
  Error placed(const Error& error) const;
};

// YAML text; `where` stands for the file's name. Throws Error as load_config_text.
ConfigText parse_yaml(const std::string& text, const std::string& where);

// Throws Error naming file, line and column for text that is neither.
ConfigText load_config_text(const std::filesystem::path& path);

}  // namespace vlm
