#include "train/config/range_checks.h"

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::train {

void throw_out_of_range(const char* key, const std::string& got, const std::string& wanted) {
  throw Error({.what = "value out of range", .where = key, .got = got, .wanted = wanted});
}

void require_count(std::int64_t value, std::int64_t least, std::int64_t most, const char* key) {
  if (value >= least && value <= most) return;
  // Who asks for too little is told about that bound alone.
  throw_out_of_range(key, concat(value),
                     value < least ? concat("at least ", least) : concat("at most ", most));
}

void require_between(double value, double least, double most, const char* key) {
  if (!(value >= least && value <= most)) {
    throw_out_of_range(key, concat(value), concat(least, " to ", most));
  }
}

}  // namespace vlm::train
