// Many draws of one kind: seeds, failures, and what is left of those for people to look at.
//
// VLM_TEST_DRAWS says how many (default 30), VLM_TEST_SEED the first seed (default 1; the draws
// take the ones behind it). So a failing draw is repeated by VLM_TEST_DRAWS=1 and its seed, which
// `scripts/soak 1 --seed S` does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

#include "tests/combinations/dice.h"

namespace vlm {

// What a draw found wrong.
class DrawFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// How the draws of one kind went.
struct DrawReport {
  int done = 0;
  std::map<std::string, int> refused;  // combinations that may not be, by the program's words
  std::map<std::string, int> told;     // damage that ended a run with an error, by its words
};

// A draw makes its files below `folder`, and throws DrawFailed or returns.
using DrawFunction =
    std::function<void(Dice& dice, const std::filesystem::path& folder, DrawReport& report)>;

// Runs the draws; each that fails is a failed check that names its seed and its folder, which is
// kept. Prints the counts.
void run_draws(const std::string& kind, const DrawFunction& draw);

// Throws DrawFailed with `what` unless `is_so`.
inline void expect(bool is_so, const std::string& what) {
  if (!is_so) throw DrawFailed(what);
}

}  // namespace vlm
