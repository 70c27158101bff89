#include "vlm/io/hub/hub_pull.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"
#include "vlm/core/stop_signal.h"
#include "vlm/io/hub/hub_blob.h"
#include "vlm/io/hub/hub_cache.h"
#include "vlm/io/hub/hub_client.h"
#include "vlm/io/hub/hub_files.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostIndexBytes = 64 << 20;

bool is_there(const fs::path& path) {
  std::error_code dangling;
  return fs::is_regular_file(path, dangling);
}

std::string megabytes(std::int64_t bytes) {
  return fixed_text(static_cast<double>(bytes) / 1e6, 1) + " MB";
}

// Megabytes for people, kilobytes where those would be few.
class BytesProgress {
 public:
  BytesProgress(std::int64_t total, std::int64_t done) : total_(total), done_(done) { begin(); }

  // Negative when bytes of an earlier run turn out to be of no use: the rate begins anew.
  void add(std::int64_t bytes, const std::string& file) {
    done_ += bytes;
    if (bytes < 0) begin();
    if (shown() != last_shown_) progress_->update(shown(), file);
    last_shown_ = shown();
  }

 private:
  void begin() { progress_.emplace(is_small() ? "kB" : "MB", in_units(total_), shown()); }

  bool is_small() const { return total_ < 10'000'000; }
  std::int64_t in_units(std::int64_t bytes) const {
    return bytes / (is_small() ? 1000 : 1'000'000);
  }
  // Another process at the same partial file can make the counts differ from the plan.
  std::int64_t shown() const { return in_units(std::clamp<std::int64_t>(done_, 0, total_)); }

  std::int64_t total_, done_, last_shown_ = -1;
  std::optional<Progress> progress_;
};

// Files without which nothing loads come late, so that a snapshot is never taken for whole before
// it is.
int link_rank(const std::string& file) {
  if (file == "config.json") return 2;
  return file.ends_with(".safetensors") || file == kWeightIndex ? 1 : 0;
}

void check_room(const fs::path& cache, std::int64_t bytes) {
  fs::path place = fs::absolute(cache);
  while (!fs::exists(place) && place.has_relative_path()) place = place.parent_path();
  std::error_code unknown;
  const fs::space_info room = fs::space(place, unknown);
  if (unknown || bytes < 0 || static_cast<std::uintmax_t>(bytes) <= room.available) return;
  throw Error({.what = "not enough room on the disk",
               .where = cache.string(),
               .got = megabytes(static_cast<std::int64_t>(room.available)),
               .wanted = megabytes(bytes),
               .hint = "HF_HUB_CACHE and HF_HOME name the cache"});
}

// The mark by which backup programs know what they may leave out (bford.info/cachedir).
void mark_as_cache(const fs::path& cache) {
  const fs::path tag = cache / "CACHEDIR.TAG";
  if (!fs::exists(tag)) save_text(tag, "Signature: 8a477f597d28d172789f06886806bc55\n");
}

class Pull {
 public:
  Pull(HubName name, const HubOptions& options)
      : name_(std::move(name)), client_(options), cache_(options.cache) {
    folders_.repository = repository_folder(cache_, name_);
    folders_.locks = cache_ / ".locks" / folders_.repository.filename();
  }

  fs::path run() {
    listing_ = client_.list(name_);
    snapshot_ = folders_.repository / "snapshots" / listing_.commit;
    const std::vector<std::string> weights = weight_files(listing_.files);
    if (weights.empty() && !is_listed(kWeightIndex)) refuse_without_weights();
    std::vector<HubFile> files = describe_missing(weights);
    fetch(files);
    put_in_place(std::move(files));
    return snapshot_;
  }

 private:
  bool is_listed(const std::string& file) const {
    return std::find(listing_.files.begin(), listing_.files.end(), file) != listing_.files.end();
  }

  [[noreturn]] void refuse_without_weights() const {
    throw Error({.what = "no safetensors weights in the repository",
                 .where = concat(name_.repository(), "@", name_.revision),
                 .hint = "pickled weights (.bin, .pt) are never fetched"});
  }

  // Hash and size of every wanted file that the snapshot lacks.
  std::vector<HubFile> describe_missing(std::vector<std::string> wanted) {
    if (wanted.empty()) wanted = fetch_index();
    std::copy_if(listing_.files.begin(), listing_.files.end(), std::back_inserter(wanted),
                 is_text_file);
    std::vector<HubFile> files;
    for (const std::string& file : wanted) {
      if (is_there(snapshot_ / file)) continue;
      files.push_back(client_.describe(name_, listing_.commit, file));
    }
    return files;
  }

  // The shards that the index names; the index is needed to know them.
  std::vector<std::string> fetch_index() {
    fs::path path = snapshot_ / kWeightIndex;
    if (!is_there(path)) {
      const HubFile index = client_.describe(name_, listing_.commit, kWeightIndex);
      fetch_blob(client_, name_, listing_.commit, index, folders_, [](std::int64_t) {});
      path = folders_.blob(index);
    }
    const std::string where = concat(name_.repository(), "/", kWeightIndex);
    std::vector<std::string> shards = shard_names(load_text(path, kMostIndexBytes), where);
    for (const std::string& shard : shards) {
      if (is_listed(shard)) continue;
      throw Error({.what = "the index names a shard that the repository lacks",
                   .where = where,
                   .got = shard});
    }
    return shards;
  }

  // Bytes of a file that an earlier run has left.
  std::int64_t partial_bytes(const HubFile& file) const {
    std::error_code absent;
    const auto bytes = fs::file_size(folders_.partial(file), absent);
    return absent ? 0 : std::min(static_cast<std::int64_t>(bytes), file.bytes);
  }

  void fetch(std::vector<HubFile> files) {
    std::erase_if(files, [&](const HubFile& file) { return has_blob(folders_, file); });
    if (files.empty()) return;
    std::int64_t total = 0, done = 0;
    for (const HubFile& file : files) {
      // Sizes are the server's word: their sum must not wrap.
      if (__builtin_add_overflow(total, file.bytes, &total)) check_room(cache_, INT64_MAX);
      done += partial_bytes(file);
    }
    check_room(cache_, total - done);
    log_info(concat("pulling ", name_.repository(), " at ", listing_.commit.substr(0, 12), ": ",
                    files.size(), " files, ", megabytes(total)));
    BytesProgress progress(total, done);
    for (const HubFile& file : files) {
      std::int64_t counted = partial_bytes(file);
      const auto count = [&](std::int64_t bytes) {
        counted += bytes;
        progress.add(bytes, file.name);
      };
      fetch_blob(client_, name_, listing_.commit, file, folders_, count);
      if (counted != file.bytes) count(file.bytes - counted);  // another process has brought it
    }
  }

  void put_in_place(std::vector<HubFile> files) {
    // Temporary names differ between processes, not between threads.
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (!files.empty()) mark_as_cache(cache_);
    std::stable_sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) {
      return link_rank(a.name) < link_rank(b.name);
    });
    for (const HubFile& file : files) link(file);
    write_ref();
  }

  // snapshots/<commit>/a/b → ../../../blobs/<hash>
  void link(const HubFile& file) {
    fs::path up;
    for ([[maybe_unused]] const auto& part : fs::path(file.name)) up /= "..";
    const fs::path target = up / ".." / "blobs" / file.hash;
    const fs::path place = snapshot_ / file.name;
    const fs::path temporary = name_aside(place);
    make_folder(place.parent_path());
    std::error_code code;
    fs::remove(temporary, code);
    fs::create_symlink(target, temporary, code);
    check_disk(code, "can't make the link", place);
    fs::rename(temporary, place, code);
    check_disk(code, "can't make the link", place);
  }

  void write_ref() {
    if (name_.revision == listing_.commit) return;
    const fs::path ref = folders_.repository / "refs" / name_.revision;
    if (is_there(ref) && load_text(ref) == listing_.commit) return;
    make_folder(ref.parent_path());
    save_text(ref, listing_.commit);
  }

  HubName name_;
  HubClient client_;
  fs::path cache_;
  HubFolders folders_;
  HubListing listing_;
  fs::path snapshot_;
};

}  // namespace

fs::path pull_model(const std::string& model, const HubOptions& options) {
  const auto name = parse_hub_name(model);
  if (!name) {
    throw Error({.what = "not the name of a model on a hub",
                 .where = printable(model),
                 .wanted = "org/name or org/name@revision"});
  }
  if (options.is_offline) {
    throw Error({.what = "nothing is pulled offline",
                 .where = model,
                 .hint = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"});
  }
  try {
    return Pull(*name, options).run();
  } catch (const Error&) {
    if (!stop_requested()) throw;
    throw Error({.what = "stopped",
                 .where = model,
                 .hint = "the same command goes on with the bytes that are there"});
  }
}

fs::path find_or_pull_model(const std::string& model) {
  const auto name = parse_hub_name(model);
  if (!name || fs::exists(model)) return resolve_model(model);
  const HubOptions options = hub_options();
  const auto snapshot = find_snapshot(options.cache, *name);
  const std::vector<std::string> missing =
      snapshot ? missing_files(*snapshot) : std::vector<std::string>{};
  if (snapshot && missing.empty()) return *snapshot;
  if (!options.is_offline) {
    log_info(snapshot ? concat("the cached ", model, " lacks ", join(missing))
                      : concat("no folder ", model, ", and not in the cache: asking ",
                               options.endpoint));
    return pull_model(model, options);
  }
  if (!snapshot) return resolve_model(model);
  throw Error({.what = "the model in the cache is not whole",
               .where = model,
               .got = concat(snapshot->string(), " without ", join(missing)),
               .hint = "HF_HUB_OFFLINE is set; `vlm pull` completes it"});
}

}  // namespace vlm
