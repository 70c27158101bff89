// What was stored comes back to the bit or not at all; the folder keeps to its bound and outlives
// crashes, other runs, damage and full disks.
#include "vlm/io/feature_cache.h"

#include <ATen/ATen.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/io/safetensors.h"
#include "vlm/io/tensor_digest.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kAmple = 1 << 30;
constexpr std::int64_t kRows = 4096;  // of an entry, 16 KiB of data

std::string key_of(int number) {
  return digest_tensor(at::full({}, number, at::kLong));
}

at::Tensor features_of(int number) {
  return at::arange(kRows, at::kFloat).mul_(0.1).add_(number);
}

bool is_same(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

std::string path_of(const ScratchFolder& scratch, int number) {
  const std::string key = key_of(number);
  return scratch.at(key.substr(0, 2) + "/" + key + ".safetensors");
}

std::uint64_t entry_bytes(const ScratchFolder& scratch) {
  std::uint64_t bytes = 0;
  for (const auto& file : fs::recursive_directory_iterator(scratch.path())) {
    if (file.path().extension() == ".safetensors") bytes += file.file_size();
  }
  return bytes;
}

std::uint64_t size_of_an_entry() {
  const ScratchFolder scratch;
  FeatureCache(scratch.path(), kAmple).store(key_of(0), features_of(0));
  return entry_bytes(scratch);
}

// Numbers below `count` whose entries are found.
std::vector<int> present(FeatureCache& cache, int count) {
  std::vector<int> numbers;
  for (int i = 0; i < count; ++i) {
    const auto found = cache.find(key_of(i));
    if (!found) continue;
    CHECK(is_same(*found, features_of(i)));
    numbers.push_back(i);
  }
  return numbers;
}

// As the folder's lock file holds it.
std::string total_text(std::uint64_t bytes) {
  char text[22];
  std::snprintf(text, sizeof text, "%020llu\n", static_cast<unsigned long long>(bytes));
  return text;
}

// Sets the time of an entry's last use.
void age(const ScratchFolder& scratch, int number, std::chrono::seconds by) {
  fs::last_write_time(path_of(scratch, number), fs::file_time_type::clock::now() - by);
}

// Messages of at least `level` while it lives.
struct LogCatcher {
  LogCatcher() {
    set_log_sink([this](LogLevel, const std::string& message) { messages.push_back(message); });
  }
  ~LogCatcher() { set_log_sink({}); }
  std::vector<std::string> messages;
};

// Runs `work` in a process of its own; false when it fails.
template <typename Work>
pid_t fork_process(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work() ? 0 : 1);
  return child;
}

TEST_CASE("features come back to the bit, in every dtype and shape") {
  const ScratchFolder scratch;
  FeatureCache cache(scratch.path(), kAmple);
  std::vector<at::Tensor> stored = {at::randn({3, 5, 7}), at::randn({2, 4}).t(),
                                    at::full({2}, std::nan("")), at::empty({0, 4}), at::ones({})};
  for (const auto dtype : {at::kHalf, at::kBFloat16, at::kDouble}) {
    stored.push_back(at::randn({4, 3}).to(dtype));
  }
  for (int i = 0; i < static_cast<int>(stored.size()); ++i) {
    CHECK_FALSE(cache.find(key_of(i)));
    cache.store(key_of(i), stored[i]);
  }
  FeatureCache later(scratch.path(), kAmple);
  for (int i = 0; i < static_cast<int>(stored.size()); ++i) {
    const auto found = later.find(key_of(i));
    REQUIRE(found);
    CHECK(is_same(*found, stored[i].contiguous()));
  }
  CHECK_FALSE(later.find(key_of(100)));
  CHECK(cache.misses() == stored.size());
  CHECK(later.hits() == stored.size());
  CHECK(later.misses() == 1);
}

TEST_CASE(
    "an entry is a safetensors file of features and checksum, in a folder of its first two "
    "digits; the key is part of the checksum") {
  const ScratchFolder scratch;
  FeatureCache cache(scratch.path(), kAmple);
  cache.store(key_of(1), features_of(1));
  const SafetensorsFile file(path_of(scratch, 1));
  REQUIRE(file.entries().size() == 2);
  CHECK(is_same(file.tensor("features"), features_of(1)));
  const at::Tensor checksum = file.tensor("checksum");
  CHECK(std::string(checksum.data_ptr<std::uint8_t>(), checksum.data_ptr<std::uint8_t>() + 32) ==
        digest_tensors({{key_of(1), features_of(1)}}));

  fs::create_directories(fs::path(path_of(scratch, 2)).parent_path());
  fs::copy_file(path_of(scratch, 1), path_of(scratch, 2));
  CHECK_FALSE(cache.find(key_of(2)));
  CHECK_FALSE(fs::exists(path_of(scratch, 2)));
  CHECK_THROWS_WITH(cache.find("../12345678"), Contains("not a key of a feature cache"));
  CHECK_THROWS_WITH(cache.store("1234567", features_of(1)), Contains("not a key"));
}

TEST_CASE("a note comes back with its features, and is part of the checksum") {
  const ScratchFolder scratch;
  FeatureCache cache(scratch.path(), kAmple);
  cache.store(key_of(1), features_of(1), "12:30, \"x\"");
  const auto found = cache.find_with_note(key_of(1));
  REQUIRE(found);
  CHECK(is_same(found->features, features_of(1)));
  CHECK(found->note == "12:30, \"x\"");
  CHECK(is_same(*cache.find(key_of(1)), features_of(1)));
  std::string bytes = load_text(path_of(scratch, 1));
  bytes.replace(bytes.find("12:30"), 5, "12:31");
  std::ofstream(path_of(scratch, 1), std::ios::binary) << bytes;
  CHECK_FALSE(cache.find_with_note(key_of(1)));
  cache.store(key_of(2), features_of(2));
  CHECK(cache.find_with_note(key_of(2))->note.empty());
}

TEST_CASE("the least recently used entries go when the bound is passed") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  FeatureCache cache(scratch.path(), 10 * entry, {.keep_used = false});
  for (int i = 0; i < 10; ++i) cache.store(key_of(i), features_of(i));
  REQUIRE(cache.find(key_of(0)));  // used last
  cache.store(key_of(10), features_of(10));
  CHECK(entry_bytes(scratch) == 10 * entry);
  CHECK(present(cache, 11) == std::vector<int>{0, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  for (int i = 11; i < 60; ++i) {
    cache.store(key_of(i), features_of(i));
    REQUIRE(entry_bytes(scratch) <= 10 * entry);
  }
  CHECK(present(cache, 60).back() == 59);
}

TEST_CASE("a run keeps what it used, and takes the room of earlier runs") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  const LogCatcher log;
  FeatureCache first(scratch.path(), 10 * entry);
  for (int i = 0; i < 20; ++i) first.store(key_of(i), features_of(i));
  CHECK(present(first, 20) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(log.messages == std::vector<std::string>{
                            "the feature cache is full of pictures in use; no more are stored in " +
                            scratch.path().string()});

  for (int i = 0; i < 10; ++i) age(scratch, i, std::chrono::seconds(100 - i));
  FeatureCache second(scratch.path(), 10 * entry);
  REQUIRE(second.find(key_of(0)));
  for (int i = 20; i < 40; ++i) second.store(key_of(i), features_of(i));
  CHECK(present(second, 40) == std::vector<int>{0, 20, 21, 22, 23, 24, 25, 26, 27, 28});
}

TEST_CASE("what is larger than the bound isn't stored, and a smaller bound shrinks the folder") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  FeatureCache tiny(scratch.path(), entry - 1);
  tiny.store(key_of(0), features_of(0));
  tiny.store(key_of(1), at::ones({2}));
  CHECK_FALSE(tiny.find(key_of(0)));
  CHECK(tiny.find(key_of(1)));
  FeatureCache large(scratch.path(), kAmple);
  for (int i = 2; i < 12; ++i) large.store(key_of(i), features_of(i));
  FeatureCache small(scratch.path(), 3 * entry, {.keep_used = false});
  small.store(key_of(20), features_of(20));
  CHECK(entry_bytes(scratch) <= 3 * entry);
  CHECK(small.find(key_of(20)));
}

TEST_CASE("a wrong or missing total is mended") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  FeatureCache cache(scratch.path(), 10 * entry);
  for (int i = 0; i < 3; ++i) cache.store(key_of(i), features_of(i));
  CHECK(load_text(scratch.at("lock")) == total_text(3 * entry));
  const std::vector<std::string> totals = {"", "x\n", std::string(21, '9'),
                                           "-0000000000000000001\n", total_text(99 * entry)};
  for (std::size_t i = 0; i < totals.size(); ++i) {
    scratch.write("lock", totals[i]);
    cache.store(key_of(3 + i), features_of(3 + i));
    CHECK(load_text(scratch.at("lock")) == total_text((4 + i) * entry));
  }
}

TEST_CASE("leftovers of a crash are removed once they are old") {
  const ScratchFolder scratch;
  const std::string old = scratch.write("tmp/old", "half an entry");
  const std::string young = scratch.write("tmp/young", "another run's");
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::minutes(61));
  FeatureCache cache(scratch.path(), kAmple);
  CHECK_FALSE(fs::exists(old));
  CHECK(fs::exists(young));
  cache.store(key_of(1), features_of(1));
  CHECK(fs::directory_iterator(scratch.path() / "tmp")->path() == young);
}

// A change that a broken disk, a crash or a hand could make.
std::string damaged(std::string bytes, std::mt19937& random) {
  const std::size_t at = random() % bytes.size();
  switch (random() % 6) {
    case 0:
      bytes[at] ^= static_cast<char>(1 << random() % 8);
      break;
    case 1:
      bytes.resize(at);
      break;
    case 2:
      bytes.append(1 + random() % 9, static_cast<char>(random()));
      break;
    case 3:
      std::fill(bytes.begin() + at, bytes.end(), '\0');
      break;
    case 4:
      bytes.erase(at, 1 + random() % 16);
      break;
    default:
      bytes[random() % std::min<std::size_t>(bytes.size(), 200)] = random();
  }
  return bytes;
}

TEST_CASE("a damaged entry is dropped, whatever the damage") {
  const ScratchFolder scratch;
  FeatureCache cache(scratch.path(), kAmple);
  const at::Tensor features = at::arange(50, at::kFloat).view({5, 10});
  cache.store(key_of(1), features);
  const std::string whole = load_text(path_of(scratch, 1));
  std::mt19937 random(1);
  int dropped = 0;
  for (int i = 0; i < 2000; ++i) {
    scratch.write(fs::relative(path_of(scratch, 1), scratch.path()), damaged(whole, random));
    const auto found = cache.find(key_of(1));
    if (found) {
      REQUIRE(is_same(*found, features));  // a space of the header, say
    } else {
      REQUIRE_FALSE(fs::exists(path_of(scratch, 1)));
      ++dropped;
    }
  }
  CHECK(dropped > 1900);
  CHECK(cache.misses() == static_cast<std::uint64_t>(dropped));
  cache.store(key_of(1), features);
  CHECK(is_same(*cache.find(key_of(1)), features));
}

TEST_CASE("a full disk costs one warning, and reading goes on") {
  const ScratchFolder scratch;
  const LogCatcher log;
  FeatureCache cache(scratch.path(), kAmple);
  cache.store(key_of(1), features_of(1));
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {8192, before.rlim_max};  // writes fail from here on
  ::setrlimit(RLIMIT_FSIZE, &small);
  for (int i = 2; i < 5; ++i) cache.store(key_of(i), features_of(i));
  ::setrlimit(RLIMIT_FSIZE, &before);
  cache.store(key_of(5), features_of(5));
  CHECK(present(cache, 6) == std::vector<int>{1});
  REQUIRE(log.messages.size() == 1);
  CHECK_THAT(log.messages[0],
             Contains("the feature cache stores no more: " + (scratch.path() / "tmp").string()) &&
                 Contains("can't write the file: got File too large"));
  CHECK(fs::is_empty(scratch.path() / "tmp"));
}

TEST_CASE("a folder that can't be made costs one warning") {
  const ScratchFolder scratch;
  const LogCatcher log;
  for (const fs::path& folder : {fs::path(scratch.write("file", "x")) / "cache", fs::path()}) {
    FeatureCache cache(folder, kAmple);
    cache.store(key_of(1), features_of(1));
    CHECK_FALSE(cache.find(key_of(1)));
  }
  REQUIRE(log.messages.size() == 2);
  CHECK_THAT(log.messages[0],
             Contains("the feature cache stores no more: ") && Contains("Not a directory"));
  CHECK(log.messages[1] ==
        "the feature cache stores no more: no folder is named, and HOME isn't set");
}

TEST_CASE("threads share a cache") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  FeatureCache cache(scratch.path(), 12 * entry, {.keep_used = false});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 200; ++i) {
        const int number = random() % 20;
        const auto found = cache.find(key_of(number));
        if (!found) cache.store(key_of(number), features_of(number));
        if (found && !is_same(*found, features_of(number))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(cache.hits() + cache.misses() == 800);
  CHECK(entry_bytes(scratch) <= 12 * entry);
  CHECK(load_text(scratch.at("lock")) == total_text(entry_bytes(scratch)));
}

TEST_CASE("runs share a folder") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  std::vector<pid_t> children;
  for (int p = 0; p < 3; ++p) {
    children.push_back(fork_process([&] {
      FeatureCache cache(scratch.path(), 12 * entry, {.keep_used = false});
      std::mt19937 random(p);
      for (int i = 0; i < 300; ++i) {
        const int number = random() % 20;
        const auto found = cache.find(key_of(number));
        if (!found) cache.store(key_of(number), features_of(number));
        if (found && !is_same(*found, features_of(number))) return false;
      }
      return cache.hits() > 0;
    }));
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(entry_bytes(scratch) <= 12 * entry);
  CHECK(load_text(scratch.at("lock")) == total_text(entry_bytes(scratch)));
  CHECK(fs::is_empty(scratch.path() / "tmp"));
}

TEST_CASE("a run that is killed leaves whole entries within the bound") {
  const ScratchFolder scratch;
  const std::uint64_t entry = size_of_an_entry();
  std::mt19937 random(7);
  for (int kill = 0; kill < 20; ++kill) {
    const pid_t child = fork_process([&] {
      FeatureCache cache(scratch.path(), 12 * entry, {.keep_used = false});
      for (int i = 0;; ++i) cache.store(key_of(i % 40), features_of(i % 40));
      return true;
    });
    ::usleep(random() % 20000);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    REQUIRE(entry_bytes(scratch) <= 12 * entry);
    FeatureCache cache(scratch.path(), 12 * entry, {.keep_used = false});
    CHECK(present(cache, 40).size() * entry == entry_bytes(scratch));
  }
}

TEST_CASE("the folder's default place follows the environment") {
  const char* const names[] = {"VLM_CACHE", "XDG_CACHE_HOME", "HOME"};
  std::vector<std::optional<std::string>> before;
  for (const char* name : names) {
    const char* value = std::getenv(name);
    before.push_back(value ? std::optional<std::string>(value) : std::nullopt);
    ::setenv(name, concat("/", name).c_str(), 1);
  }
  CHECK(default_feature_cache_folder() == "/VLM_CACHE/features");
  ::unsetenv("VLM_CACHE");
  CHECK(default_feature_cache_folder() == "/XDG_CACHE_HOME/vlm/features");
  ::setenv("XDG_CACHE_HOME", "", 1);
  CHECK(default_feature_cache_folder() == "/HOME/.cache/vlm/features");
  ::unsetenv("HOME");
  CHECK(default_feature_cache_folder().empty());
  for (int i = 0; i < 3; ++i) {
    before[i] ? ::setenv(names[i], before[i]->c_str(), 1) : ::unsetenv(names[i]);
  }
}

}  // namespace
}  // namespace vlm
