#include "data/encode_options.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {

const std::vector<std::string>& length_policy_names() {
  static const std::vector<std::string> names = {"error", "truncate", "skip"};
  return names;
}

LengthPolicy parse_length_policy(const std::string& name) {
  const auto& names = length_policy_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<LengthPolicy>(found - names.begin());
  throw Error({.what = "unknown value",
               .where = "length_policy",
               .got = concat("'", name, "'"),
               .wanted = join(names)});
}

LengthBound EncodeOptions::bound(std::int64_t max_positions) const {
  const bool is_models = max_positions > 0 && (max_length == 0 || max_positions < max_length);
  if (is_models) return {max_positions, "max_position_embeddings"};
  return {max_length, "max_length"};
}

}  // namespace vlm::data
