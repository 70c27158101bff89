#include "vlm/models/parts/checkpoint_keys.h"

#include "vlm/core/concat.h"

namespace vlm {

std::string to_name(std::string_view key, std::span<const KeyPrefix> prefixes) {
  constexpr std::string_view kWrapper = "base_model.model.";
  if (key.starts_with(kWrapper)) key.remove_prefix(kWrapper.size());
  std::string_view longest, its_name;
  for (const KeyPrefix& prefix : prefixes) {
    for (const std::string_view spelling : {prefix.published, prefix.name}) {
      if (spelling.size() <= longest.size() || !key.starts_with(spelling)) continue;
      longest = spelling;
      its_name = prefix.name;
    }
  }
  return concat(its_name, key.substr(longest.size()));
}

std::string to_published(std::string_view name, std::span<const KeyPrefix> prefixes) {
  for (const KeyPrefix& prefix : prefixes) {
    if (!name.starts_with(prefix.name)) continue;
    return concat(prefix.published, name.substr(prefix.name.size()));
  }
  return std::string(name);
}

}  // namespace vlm
