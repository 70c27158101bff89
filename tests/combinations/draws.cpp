#include "tests/combinations/draws.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>

#include "tests/support/catch.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

std::uint64_t read_variable(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

void print_counts(const char* what, const std::map<std::string, int>& counts) {
  for (const auto& [text, count] : counts) {
    std::cout << "  " << count << " × " << what << ": " << text << "\n";
  }
}

// In memory where there is room: a draw syncs files a hundred times, which takes long on a busy
// disk.
fs::path find_scratch() {
  constexpr std::uintmax_t kRoom = std::uintmax_t{1} << 29;
  if (const char* given = std::getenv("VLM_TEST_FOLDER")) return given;
  std::error_code code;
  const fs::space_info memory = fs::space("/dev/shm", code);
  return !code && memory.available > kRoom ? "/dev/shm" : fs::temp_directory_path();
}

// What went wrong, if anything did.
std::optional<std::string> try_draw(const DrawFunction& draw, std::uint64_t seed,
                                    const fs::path& folder, DrawReport& report) {
  Dice dice(seed);
  try {
    draw(dice, folder, report);
    return std::nullopt;
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

void run_draws(const std::string& kind, const DrawFunction& draw) {
  const std::uint64_t count = read_variable("VLM_TEST_DRAWS", 30);
  const std::uint64_t first = read_variable("VLM_TEST_SEED", 1);
  const fs::path above = find_scratch();
  std::cout << kind << ": " << count << " draws from seed " << first << std::endl;
  DrawReport report;
  const auto begun = std::chrono::steady_clock::now();
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const fs::path folder =
        above / ("vlm_" + kind + "_" + std::to_string(seed) + "_" + std::to_string(::getpid()));
    fs::create_directories(folder);
    if (const auto failure = try_draw(draw, seed, folder, report)) {
      const std::string text = kind + " draw, seed " + std::to_string(seed) + ": " + *failure +
                               "\n  kept in " + folder.string() +
                               "\n  again: scripts/soak 1 --seed " + std::to_string(seed);
      std::ofstream(folder / "failure.txt") << text << "\n";
      std::cout << text << std::endl;  // Catch2 breaks long lines
      FAIL_CHECK("seed " << seed << " of " << kind << ", see above");
    } else {
      ++report.done;
      fs::remove_all(folder);
    }
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
  std::cout << kind << ": " << report.done << " of " << count << " draws are right, "
            << taken.count() << " s\n";
  print_counts("refused", report.refused);
  print_counts("told", report.told);
  CHECK(report.done > 0);
}

}  // namespace vlm
