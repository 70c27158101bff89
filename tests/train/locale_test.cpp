// Texts and files of training in a program whose locale writes numbers otherwise.
#include <string>

#include "tests/support/catch.h"
#include "tests/support/grouping_locale.h"
#include "train/plan/run_plan.h"
#include "train/report/run_record.h"
#include "train/run/training_state.h"

namespace vlm::train {
namespace {

TEST_CASE("names of checkpoints and numbers in texts don't depend on the locale") {
  const RunPlan plan{.device = "cuda:0",
                     .processes = 1000,
                     .memory_mb = {{"weights", 12345.6}},
                     .peak_mb = 1234567,
                     .memory_gb = 2000,
                     .samples = 10000,
                     .steps = 1234,
                     .tokens_per_epoch = 1e6,
                     .padding = 0.125,
                     .later_step_s = 1.5,
                     .host_mb = {{"program", 54321.2}},
                     .host_peak_mb = 7654321};
  const std::string text = plan.to_text(), json = plan.to_json().dump();
  CHECK_THAT(text, Contains("weights                  12346\n") &&
                       Contains("of each of 1000 processes, MB\n") &&
                       Contains("program                  54321\n") && Contains(" 7654321\n") &&
                       Contains("1234567  fits 2000000\n") && Contains("padding 12.5 %\n") &&
                       Contains("10000 samples, 1234 steps; an epoch is 1000000 tokens"));
  const GroupingLocale locale;
  CHECK(plan.to_text() == text);
  CHECK(plan.to_json().dump() == json);
  CHECK(checkpoint_path("out", 1234567) == "out/checkpoint-1234567");
  CHECK(format_number(1234567) == "1234567");
  CHECK(format_number(1234.5678) == "1235");
  CHECK(format_number(0.00012345) == "0.0001234");
}

}  // namespace
}  // namespace vlm::train
