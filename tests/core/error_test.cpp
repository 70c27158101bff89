#include "vlm/core/error.h"

#include "tests/support/catch.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

TEST_CASE("an error reads where, what, got, wanted, hint") {
  const Error error({.what = "wrong shape", .where = "a", .got = "1", .wanted = "2", .hint = "h"});
  CHECK(std::string(error.what()) == "a: wrong shape: got 1, wanted 2 (h)");
  CHECK(std::string(located(error, "f.json").what()) ==
        "f.json: a: wrong shape: got 1, wanted 2 (h)");
  CHECK(std::string(Error({.what = "w", .wanted = "2"}).what()) == "w: wanted 2");
}

TEST_CASE("messages below the level are dropped") {
  std::string seen;
  set_log_sink([&](LogLevel, const std::string& message) { seen += message + ";"; });
  set_log_level(parse_log_level("warning"));
  log_info("quiet");
  log_warning("loud");
  set_log_level(LogLevel::kInfo);
  log_info("now");
  set_log_sink({});
  CHECK(seen == "loud;now;");
  CHECK_THROWS_WITH(parse_log_level("loud"),
                    "unknown log level: got 'loud', wanted debug, info, warning, error or off");
}

}  // namespace
}  // namespace vlm
