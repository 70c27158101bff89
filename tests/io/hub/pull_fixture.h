// A hub on this machine, an empty cache, and the variables that name both, for tests of pulls.
#pragma once

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/environment_guard.h"
#include "tests/support/hub/hub_server.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/log.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

struct PullFixture {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  HubServer server;
  std::atomic<int> waits = 0;
  Names told;
  fs::path cache = scratch.path() / "hub";
  fs::path repository = cache / "models--org--tiny";

  PullFixture() {
    server.files = tiny_model_files();
    ::setenv("HF_ENDPOINT", server.endpoint().c_str(), 1);
    ::setenv("HF_HUB_CACHE", cache.c_str(), 1);
    set_log_sink([this](LogLevel, const std::string& message) { told.push_back(message); });
  }
  ~PullFixture() { set_log_sink({}); }

  HubOptions options() {
    HubOptions options = hub_options();
    options.retry.sleep = [this](double) { ++waits; };
    return options;
  }
  fs::path pull(const std::string& model = "org/tiny") { return pull_model(model, options()); }

  const HubServerFile& weights() const { return server.files.at("model.safetensors"); }
  fs::path blob(const HubServerFile& file) const { return repository / "blobs" / hub_hash(file); }
  fs::path partial(const HubServerFile& file) const { return blob(file).string() + ".incomplete"; }
  fs::path snapshot() const { return repository / "snapshots" / server.commit; }

  // What an earlier run that was killed has left of the weights.
  void leave_partial(const std::string& bytes) const {
    fs::create_directories(repository / "blobs");
    std::ofstream(partial(weights()), std::ios::binary) << bytes;
  }
  // The ranges asked of the host with the contents.
  Names ranges() const {
    Names ranges;
    for (const HubRequest& request : server.requests()) {
      if (request.is("GET", "/cdn/")) ranges.push_back(request.range);
    }
    return ranges;
  }
  // Every file and link below the cache, with a link's target.
  Names tree() const {
    Names tree;
    for (const auto& item : fs::recursive_directory_iterator(cache)) {
      if (item.is_directory() && !item.is_symlink()) continue;
      std::string line = item.path().lexically_relative(cache).string();
      if (item.is_symlink()) line += " -> " + fs::read_symlink(item.path()).string();
      tree.push_back(line);
    }
    std::sort(tree.begin(), tree.end());
    return tree;
  }
};

}  // namespace vlm
