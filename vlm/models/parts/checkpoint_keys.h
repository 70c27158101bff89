// Keys of checkpoint files that differ from the names of modules by what they begin with.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace vlm {

struct KeyPrefix {
  std::string_view published;  // in files
  std::string_view name;       // of modules here
};

// For VisionLanguageModel::canonical_key. The longest prefix of either kind decides, so that a key
// that is a name already stays one. What a PEFT wrapper puts before a key is left out.
std::string to_name(std::string_view key, std::span<const KeyPrefix> prefixes = {});

// For VisionLanguageModel::published_key: the first of the prefixes that fits.
std::string to_published(std::string_view name, std::span<const KeyPrefix> prefixes);

}  // namespace vlm
