// `vlm pull` and --model org/name as their users meet them: killed, interrupted, and going on.
#include <filesystem>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/hub/hub_server.h"
#include "tests/support/run_program.h"
#include "vlm/core/concat.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// A hub with a fixture's files, and an empty cache.
struct HubFixture {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  HubServer server;
  fs::path cache = scratch.path() / "hub";
  std::string snapshot = (cache / "models--org--tiny/snapshots" / std::string(40, 'c')).string();

  HubFixture() {
    for (const auto& item : fs::directory_iterator(fixture("smolvlm_tiny"))) {
      const std::string name = item.path().filename().string();
      if (item.is_directory() || name.starts_with("golden")) continue;
      server.files[name] = {read_file(item.path()), name.ends_with(".safetensors")};
    }
    ::setenv("HF_ENDPOINT", server.endpoint().c_str(), 1);
    ::setenv("HF_HUB_CACHE", cache.c_str(), 1);
  }

  fs::path partial() const {
    const std::string hash = hub_hash(server.files.at("model.safetensors"));
    return cache / "models--org--tiny/blobs" / (hash + ".incomplete");
  }
  // The first half of the weights comes, then silence.
  void stop_halfway() {
    server.hook = [this](const HubRequest& request) -> std::optional<HubReply> {
      if (!request.is("GET", "/cdn/")) return std::nullopt;
      HubReply reply = server.answer(request);
      reply.cut_after = reply.body.size() / 2;
      reply.is_silent_then = true;
      return reply;
    };
  }
  // `vlm pull` in the background, given `signal` as soon as half of the weights is there.
  ProgramResult pull_and_signal(const std::string& signal) {
    const auto half = server.files.at("model.safetensors").content.size() / 2;
    return run_shell(
        concat("'", VLM_BINARY, "' pull org/tiny & pid=$!\n", "for i in $(seq 2000); do\n",
               "  [ \"$(stat -c %s '", partial().string(), "' 2>/dev/null)\" = ", half,
               " ] && break\n  sleep 0.01\ndone\n", "kill -", signal,
               " $pid\ncode=0\nwait $pid || code=$?\nexit $code\n"),
        VLM_SOURCE_DIR);
  }
  std::string last_range() const {
    std::string range;
    for (const HubRequest& request : server.requests()) {
      if (request.is("GET", "/cdn/")) range = request.range;
    }
    return range;
  }
};

TEST_CASE("pull prints the folder on stdout and nothing else there") {
  HubFixture hub;
  const ProgramResult first = run_vlm("pull org/tiny");
  CHECK(first.code == 0);
  CHECK(first.out == hub.snapshot + "\n");
  CHECK_THAT(first.err, Contains("pulling org/tiny at cccccccccccc: 9 files, 0.4 MB"));
  const ProgramResult second = run_vlm("pull org/tiny@v1");
  CHECK(second.out == hub.snapshot + "\n");
  CHECK(second.err.empty());
  const ProgramResult wrong = run_vlm("pull ../tiny");
  CHECK(wrong.code == 1);
  CHECK(wrong.err ==
        "error: ../tiny: not the name of a model on a hub: wanted org/name or org/name@revision\n");
}

TEST_CASE("--model org/name pulls once, then loads from the cache, also offline") {
  HubFixture hub;
  const std::string ask =
      "generate --device cpu --threads 1 --prompt Hi --max-new-tokens 3 --model ";
  const ProgramResult by_folder = run_vlm(ask + fixture("smolvlm_tiny").string());
  const ProgramResult by_name = run_vlm(ask + "org/tiny");
  CHECK(by_name.code == 0);
  CHECK(by_name.out == by_folder.out);
  hub.server.forget_requests();
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  CHECK(run_vlm(ask + "org/tiny").out == by_folder.out);
  CHECK_THAT(run_vlm("inspect org/tiny").out, Contains(hub.snapshot));
  CHECK(hub.server.requests().empty());
}

TEST_CASE("kill -9 in the middle of a file: noticed, and gone on with") {
  HubFixture hub;
  hub.stop_halfway();
  CHECK(hub.pull_and_signal("KILL").code == 137);
  const auto half = hub.server.files.at("model.safetensors").content.size() / 2;
  REQUIRE(fs::file_size(hub.partial()) == half);
  const ProgramResult offline =
      run_shell(concat("HF_HUB_OFFLINE=1 '", VLM_BINARY, "' inspect org/tiny"), VLM_SOURCE_DIR);
  CHECK(offline.code == 1);
  CHECK_THAT(offline.err, Contains("org/tiny"));
  hub.server.hook = {};
  const ProgramResult resumed = run_vlm("inspect org/tiny");
  CHECK(resumed.code == 0);
  CHECK(hub.last_range() == concat("bytes=", half, "-"));
  CHECK(read_file(fs::path(hub.snapshot) / "model.safetensors") ==
        hub.server.files.at("model.safetensors").content);
}

TEST_CASE("A signal stops a pull with its own exit code, and the next one goes on") {
  HubFixture hub;
  hub.stop_halfway();
  const ProgramResult stopped = hub.pull_and_signal("TERM");
  CHECK(stopped.code == 143);
  CHECK(stopped.out.empty());
  CHECK_THAT(stopped.err, Contains("error: org/tiny: stopped (the same command goes on with the "
                                   "bytes that are there)"));
  hub.server.hook = {};
  CHECK(run_vlm("pull org/tiny").out == hub.snapshot + "\n");
  CHECK(hub.last_range().starts_with("bytes="));
}

}  // namespace
}  // namespace vlm
