// Conversion of mapped tensors in parallel pieces.
#include "vlm/io/convert.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <stdexcept>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/io/parallel.h"
#include "vlm/io/safetensors.h"

namespace vlm {
namespace {

TEST_CASE("conversion: every element, across pieces; the dropped pages read the same again") {
  const ScratchFolder scratch;
  const std::int64_t large = (1 << 20) * 2 + 12345;  // three pieces, the last not whole
  const NamedTensors stored = {{"large", at::randn({large}).to(at::kBFloat16)},
                               {"empty", at::empty({0, 3}, at::kHalf)},
                               {"small", at::randn({3, 5}).to(at::kHalf)}};
  save_safetensors(scratch.at("m"), stored);
  const SafetensorsFile file(scratch.at("m"));
  std::vector<Conversion> conversions;
  for (const auto& [name, tensor] : stored) {
    conversions.push_back({file.tensor(name), empty_weight(tensor.sizes(), at::kFloat)});
  }
  convert_mapped(conversions);
  for (std::size_t i = 0; i < stored.size(); ++i) {
    CHECK(conversions[i].to.equal(stored[i].second.to(at::kFloat)));
    CHECK(conversions[i].from.equal(stored[i].second));
  }
}

double resident_mb() {
  std::ifstream status("/proc/self/statm");
  double all = 0, resident = 0;
  status >> all >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1e6;
}

TEST_CASE(
    "unchanged pages of mapped tensors leave memory; what was written, or is no file's, stays") {
  const ScratchFolder scratch;
  const NamedTensors stored = {{"a", at::randn({40, 100003})}, {"b", at::randn({7})}};
  save_safetensors(scratch.at("m"), stored);
  const SafetensorsFile file(scratch.at("m"));
  const at::Tensor a = file.tensor("a"), b = file.tensor("b");
  a[3].add_(1.0);  // this process's own pages from now on
  const at::Tensor own = at::randn({100000});
  const at::Tensor wanted = stored[0].second.clone(), own_wanted = own.clone();
  wanted[3].add_(1.0);
  CHECK(a.equal(wanted));
  const double before = resident_mb();
  drop_unchanged_pages({{"a", a},
                        {"b", b},
                        {"own", own},
                        {"empty", at::empty({0})},
                        {"strided", own.view({2, 50000}).t()}});
  const double dropped = before - resident_mb();  // of 16 MB, 0.4 of them written
  if (std::ifstream("/proc/self/pagemap")) CHECK(dropped > 14);
  CHECK(dropped < 16.5);
  CHECK(a.equal(wanted));
  CHECK(b.equal(stored[1].second));
  CHECK(own.equal(own_wanted));
}

TEST_CASE("pieces: each once, whatever the number; an exception comes out") {
  for (const std::int64_t count : {0, 1, 2, 1000}) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
    run_pieces(count, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
    for (const auto& n : calls) CHECK(n == 1);
  }
  CHECK_THROWS_AS(run_pieces(8, [](std::int64_t) { throw std::runtime_error("piece"); }),
                  std::runtime_error);
}

}  // namespace
}  // namespace vlm
