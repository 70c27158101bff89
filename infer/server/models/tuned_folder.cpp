#include "infer/server/models/tuned_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// What the file is a copy of: a replaced one is another.
std::string stamp_of(const fs::path& file) {
  struct stat status = {};
  if (::stat(file.c_str(), &status) != 0) return "";
  return concat(file.string(), ":", status.st_ino, ":", status.st_mtim.tv_sec, ".",
                status.st_mtim.tv_nsec);
}

std::optional<TunedFolder> look_at(const fs::path& folder) {
  std::error_code code;
  const fs::path weights = folder / "adapter_model.safetensors";
  if (fs::exists(folder / "adapter_config.json", code)) {
    if (!fs::exists(weights, code)) return std::nullopt;
    return TunedFolder{.path = folder, .stamp = stamp_of(weights)};
  }
  if (!fs::exists(folder / "config.json", code)) return std::nullopt;
  return TunedFolder{.path = folder, .is_whole = true, .stamp = stamp_of(folder / "config.json")};
}

// The N of "checkpoint-N", or −1.
std::int64_t step_of(const fs::path& path) {
  constexpr std::string_view kPrefix = "checkpoint-";
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [at, code] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return code == std::errc() && at == end ? step : -1;
}

}  // namespace

TunedFolder find_tuned(const fs::path& folder) {
  if (auto found = look_at(folder)) return *std::move(found);
  throw Error(
      {.what = fs::is_directory(folder) ? "neither an adapter nor a model" : "no such folder",
       .where = folder.string(),
       .wanted = "adapter_config.json and adapter_model.safetensors"});
}

std::vector<TunedFolder> list_checkpoints(const fs::path& run) {
  std::vector<std::pair<std::int64_t, TunedFolder>> found;
  std::error_code code, unseen;  // the training may change the folder meanwhile
  for (fs::directory_iterator entry(run, code); !code && entry != fs::directory_iterator();
       entry.increment(code)) {
    const fs::path& folder = entry->path();
    const std::int64_t step = step_of(folder);
    if (step < 0 || !fs::exists(folder / "trainer_state.json", unseen)) continue;
    if (auto tuned = look_at(folder)) found.emplace_back(step, *std::move(tuned));
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<TunedFolder> checkpoints;
  for (auto& [step, tuned] : found) checkpoints.push_back(std::move(tuned));
  if (checkpoints.empty()) {
    if (auto result = look_at(run)) checkpoints.push_back(*std::move(result));
  }
  return checkpoints;
}

}  // namespace vlm::infer
