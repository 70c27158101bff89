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

}  // namespace vlm::data
