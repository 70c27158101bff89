#include "train/config/range_checks.h"

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {

void throw_out_of_range(const char* key, const std::string& got, const std::string& wanted) {
  throw Error({.what = "value out of range", .where = key, .got = got, .wanted = wanted});
}

void require_at_least(std::int64_t value, std::int64_t least, const char* key) {
  if (value < least) throw_out_of_range(key, concat(value), concat("at least ", least));
}

void require_between(double value, double least, double most, const char* key) {
  if (!(value >= least && value <= most)) {
    throw_out_of_range(key, concat(value), concat(least, " to ", most));
  }
}

}  // namespace vlm::train
