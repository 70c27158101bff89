#include "vlm/io/hub/hub_pull.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"
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

// Reads a text file of the listed commit.
using ReadFile = std::function<std::string(const std::string& file)>;
// The files to fetch, of those that are listed.
using ChooseFiles = std::function<std::vector<std::string>(const std::vector<std::string>& listed,
                                                           const ReadFile&)>;

bool is_listed(const std::vector<std::string>& listed, const std::string& file) {
  return std::find(listed.begin(), listed.end(), file) != listed.end();
}

// The weights, or the shards that an index names, and the text files.
std::vector<std::string> choose_model_files(const HubName& name,
                                            const std::vector<std::string>& listed,
                                            const ReadFile& read) {
  std::vector<std::string> chosen = weight_files(listed);
  if (chosen.empty() && !is_listed(listed, kWeightIndex)) {
    throw Error({.what = "no safetensors weights in the repository",
                 .where = concat(name.repository(), "@", name.revision),
                 .hint = "pickled weights (.bin, .pt) are never fetched"});
  }
  if (chosen.empty()) {
    const std::string where = concat(name.repository(), "/", kWeightIndex);
    chosen = shard_names(read(kWeightIndex), where);
    for (const std::string& shard : chosen) {
      if (is_listed(listed, shard)) continue;
      throw Error({.what = "the index names a shard that the repository lacks",
                   .where = where,
                   .got = shard});
    }
  }
  std::copy_if(listed.begin(), listed.end(), std::back_inserter(chosen), is_text_file);
  return chosen;
}

class Pull {
 public:
  Pull(HubName name, const HubOptions& options)
      : name_(std::move(name)), client_(options), cache_(options.cache) {
    folders_.repository = repository_folder(cache_, name_);
    folders_.locks = cache_ / ".locks" / folders_.repository.filename();
  }

  fs::path run(const ChooseFiles& choose) {
    listing_ = client_.list(name_);
    snapshot_ = folders_.repository / "snapshots" / listing_.commit;
    const auto read = [&](const std::string& file) { return read_early(file); };
    std::vector<HubFile> files = describe_missing(choose(listing_.files, read));
    fetch(files);
    put_in_place(std::move(files));
    return snapshot_;
  }

 private:
  // Hash and size of every wanted file that the snapshot lacks.
  std::vector<HubFile> describe_missing(const std::vector<std::string>& wanted) {
    std::vector<HubFile> files;
    for (const std::string& file : wanted) {
      if (is_there(snapshot_ / file)) continue;
      files.push_back(client_.describe(name_, listing_.commit, file));
    }
    return files;
  }

  // A file that says which others are wanted. It is linked with these, later.
  std::string read_early(const std::string& file) {
    fs::path path = snapshot_ / file;
    if (!is_there(path)) {
      const HubFile described = client_.describe(name_, listing_.commit, file);
      fetch_blob(client_, name_, listing_.commit, described, folders_, [](std::int64_t) {});
      path = folders_.blob(described);
    }
    return load_text(path, kMostIndexBytes);
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
    const fs::path temporary = temporary_path(place);
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

fs::path pull(const HubName& name, const HubOptions& options, const ChooseFiles& choose) {
  try {
    return Pull(name, options).run(choose);
  } catch (const Error&) {
    if (!stop_requested()) throw;
    throw Error({.what = "stopped",
                 .where = name.repository(),
                 .hint = "the same command goes on with the bytes that are there"});
  }
}

// Names of the files below a snapshot, as a listing has them.
std::vector<std::string> files_below(const fs::path& snapshot) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(snapshot)) {
    if (is_there(entry.path())) files.push_back(entry.path().lexically_relative(snapshot).string());
  }
  return files;
}

// "train-00001-of-00004.parquet" promises three others. Throws Error naming one that isn't there.
void check_shards(const std::vector<std::string>& files, const fs::path& snapshot) {
  for (const std::string& file : files) {
    const auto at = file.rfind("-of-");
    if (at == std::string::npos || at < 6) continue;
    const auto digits = [&](std::size_t begin) { return file.substr(begin, 5); };
    const auto are_digits = [](const std::string& text) {
      return text.size() == 5 && text.find_first_not_of("0123456789") == std::string::npos;
    };
    if (!are_digits(digits(at - 5)) || !are_digits(digits(at + 4))) continue;
    for (int shard = 0, shards = std::stoi(digits(at + 4)); shard < shards; ++shard) {
      const std::string number = std::to_string(100000 + shard).substr(1);
      const std::string other = concat(file.substr(0, at - 5), number, file.substr(at));
      if (is_there(snapshot / other)) continue;
      throw Error({.what = "the data set in the cache is not whole",
                   .where = snapshot.string(),
                   .got = concat("no ", other),
                   .hint = "HF_HUB_OFFLINE is set; `vlm pull --repo-type dataset` completes it"});
    }
  }
}

HubDataset find_dataset(const HubName& name, const DatasetChoice& choice,
                        const HubOptions& options) {
  const auto snapshot = find_snapshot(options.cache, name);
  if (!snapshot) {
    throw Error({.what = "no such data set in the cache",
                 .where = concat(name.repository(), "@", name.revision),
                 .got = repository_folder(options.cache, name).string(),
                 .hint = "HF_HUB_OFFLINE is set: nothing is fetched"});
  }
  const std::vector<std::string> listed = files_below(*snapshot);
  const std::string card =
      is_listed(listed, kDatasetCard) ? load_text(*snapshot / kDatasetCard) : "";
  HubDataset found{.folder = *snapshot};
  try {
    found.files = choose_data_files(card, listed, choice, name.repository());
  } catch (const Error& error) {
    ErrorParts parts = error.parts();
    parts.hint = concat("in the cache; HF_HUB_OFFLINE is set, and the hub may have more: ",
                        "`vlm pull --repo-type dataset` fetches it");
    throw Error(parts);
  }
  check_shards(found.files, *snapshot);
  return found;
}

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
  return pull(*name, options, [&](const std::vector<std::string>& listed, const ReadFile& read) {
    return choose_model_files(*name, listed, read);
  });
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

HubDataset pull_dataset(const HubName& name, const DatasetChoice& choice,
                        const HubOptions& options) {
  if (options.is_offline) {
    throw Error({.what = "nothing is pulled offline",
                 .where = name.repository(),
                 .hint = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"});
  }
  HubDataset pulled;
  pulled.folder =
      pull(name, options, [&](const std::vector<std::string>& listed, const ReadFile& read) {
        const bool has_card = is_listed(listed, kDatasetCard);
        pulled.files = choose_data_files(has_card ? read(kDatasetCard) : "", listed, choice,
                                         name.repository());
        std::vector<std::string> wanted = pulled.files;
        if (has_card) wanted.insert(wanted.begin(), kDatasetCard);
        return wanted;
      });
  return pulled;
}

HubDataset find_or_pull_dataset(const HubName& name, const DatasetChoice& choice,
                                const HubOptions& options) {
  if (options.is_offline) return find_dataset(name, choice, options);
  try {
    return pull_dataset(name, choice, options);
  } catch (const NoAnswerError& error) {
    std::optional<HubDataset> found;
    try {
      found = find_dataset(name, choice, options);
    } catch (const Error&) {
      throw error;  // nothing to read instead; this one says why
    }
    log_warning(
        concat(error.what(), "; the data set is read from the cache: ", found->folder.string()));
    return *found;
  }
}

}  // namespace vlm
