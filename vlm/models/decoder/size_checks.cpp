#include "vlm/models/decoder/size_checks.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

// Numbers of one matrix, and of those like it in all layers: sides that fit by themselves may still
// multiply to more memory than any machine has. A head of 2¹⁸ tokens and 2¹⁴ channels has 2³².
constexpr std::int64_t kMaxMatrix = 1LL << 33;
constexpr std::int64_t kMaxNumbers = 1LL << 38;

void require_product(std::int64_t a, std::int64_t b, std::int64_t most, const std::string& where,
                     const std::string& names) {
  if (a <= most / b) return;
  throw Error({.what = names + " make too large a model",
               .where = where,
               .got = concat(a, " x ", b, " numbers"),
               .wanted = concat("at most ", most),
               .hint = "is the file damaged?"});
}

}  // namespace

void require(bool holds, const std::string& where, const std::string& what, std::int64_t got,
             const std::string& wanted) {
  if (holds) return;
  throw Error({.what = what, .where = where, .got = concat(got), .wanted = wanted});
}

void require_side(std::int64_t value, const std::string& where, std::int64_t most) {
  require(value >= 1 && value <= most, where, "value out of range", value, concat("1 to ", most));
}

void require_matrix(std::int64_t rows, std::int64_t cols, const std::string& where,
                    const std::string& names) {
  require_product(rows, cols, kMaxMatrix, where, names);
}

void require_layers(std::int64_t layers, std::int64_t hidden_size, std::int64_t intermediate_size,
                    const std::string& where) {
  const std::int64_t side = std::max(intermediate_size, hidden_size);
  require_matrix(side, hidden_size, where, "intermediate_size and hidden_size");
  require_product(layers, side * hidden_size, kMaxNumbers, where,
                  "num_hidden_layers, intermediate_size and hidden_size");
}

}  // namespace vlm
