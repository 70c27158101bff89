// What the environment says about the hub and the account.
#include "vlm/io/hub/hub_options.h"

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

TEST_CASE("without variables: the public hub, no token, online") {
  const EnvironmentGuard guard;
  ::setenv("HOME", "/nowhere", 1);
  const HubOptions options = hub_options();
  CHECK(options.endpoint == "https://huggingface.co");
  CHECK(options.token.empty());
  CHECK_FALSE(options.is_offline);
  CHECK(options.cache == "/nowhere/.cache/huggingface/hub");
}

TEST_CASE("HF_ENDPOINT is an address") {
  const EnvironmentGuard guard;
  ::setenv("HF_ENDPOINT", "http://mirror:8080/hf//", 1);
  CHECK(hub_options().endpoint == "http://mirror:8080/hf");
  for (const std::string bad : {"mirror", "ftp://mirror", "file:///etc/passwd", "http://a b",
                                "https://user:secret@mirror", "https://"}) {
    INFO(bad);
    ::setenv("HF_ENDPOINT", bad.c_str(), 1);
    CHECK_THROWS_WITH(hub_options(), Contains("HF_ENDPOINT: ") &&
                                         Contains(": not an address that is followed: got "));
  }
}

TEST_CASE("the token: HF_TOKEN, else HF_TOKEN_PATH, else the home folder's") {
  const EnvironmentGuard guard;
  const ScratchFolder scratch;
  scratch.write("token", " hf_home\n");
  const std::string named = scratch.write("other", "hf_named\n");
  ::setenv("HF_HOME", scratch.path().c_str(), 1);
  CHECK(hub_options().token == "hf_home");
  ::setenv("HF_TOKEN_PATH", named.c_str(), 1);
  CHECK(hub_options().token == "hf_named");
  ::setenv("HF_TOKEN", "\n", 1);  // nothing in it
  CHECK(hub_options().token == "hf_named");
  ::setenv("HF_TOKEN", "hf_variable\r\n", 1);
  CHECK(hub_options().token == "hf_variable");
}

TEST_CASE("a token can't write further headers") {
  const EnvironmentGuard guard;
  const ScratchFolder scratch;
  ::setenv("HF_TOKEN", "hf_a\r\nX-Evil: 1", 1);
  CHECK_THROWS_WITH(hub_options(), "HF_TOKEN: not a token: spaces or unprintable bytes in it");
  ::unsetenv("HF_TOKEN");
  const std::string path = scratch.write("token", "hf a");
  ::setenv("HF_TOKEN_PATH", path.c_str(), 1);
  CHECK_THROWS_WITH(hub_options(), path + ": not a token: spaces or unprintable bytes in it");
}

TEST_CASE("offline is said with the Python client's words") {
  const EnvironmentGuard guard;
  for (const char* yes : {"1", "on", "Yes", "TRUE"}) {
    ::setenv("HF_HUB_OFFLINE", yes, 1);
    CHECK(hub_options().is_offline);
  }
  ::setenv("HF_HUB_OFFLINE", "0", 1);
  ::setenv("TRANSFORMERS_OFFLINE", "1", 1);
  CHECK_FALSE(hub_options().is_offline);  // the hub's own variable comes first
  ::unsetenv("HF_HUB_OFFLINE");
  CHECK(hub_options().is_offline);
}

}  // namespace
}  // namespace vlm
