// Files that are whole or not there: what reaches the disk, in which order, and what is left when
// that fails.
#include "vlm/core/durable_file.h"

#include <sys/stat.h>

#include <set>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/disk_calls.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Calls = std::vector<std::string>;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST_CASE("a text is on the disk before it has its name, and the name before save_text returns") {
  const ScratchFolder scratch;
  fs::create_directory(scratch.path() / "runs");
  DiskWatch watch;
  save_text(scratch.path() / "runs/a.json", "{}");
  CHECK(watch->seen == Calls{"sync a.json.tmp*", "rename a.json.tmp* a.json", "sync runs"});
  CHECK(load_text(scratch.path() / "runs/a.json") == "{}");
  CHECK(names_in(scratch.path() / "runs") == std::set<std::string>{"a.json"});
}

TEST_CASE("a signal doesn't cut the waiting short") {
  const ScratchFolder scratch;
  DiskWatch watch;
  watch->errors["sync"] = EINTR;
  watch->times["sync"] = 3;
  save_text(scratch.path() / "a", "text");
  CHECK(std::count(watch->seen.begin(), watch->seen.end(), "sync a.tmp*") == 4);
  CHECK(load_text(scratch.path() / "a") == "text");
}

TEST_CASE("when the disk fails, the old file stays and nothing lies beside it") {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a";
  save_text(path, "old");
  DiskWatch watch;
  watch->errors["sync"] = EIO;
  CHECK_THROWS_WITH(save_text(path, "new"),
                    path.string() + ": can't write to the disk: got Input/output error");
  watch->errors["rename"] = ENOSPC;
  CHECK_THROWS_WITH(save_text(path, "new"),
                    path.string() + ": can't write the file: got No space left on device");
  CHECK(load_text(path) == "old");
  CHECK(names_in(scratch.path()) == std::set<std::string>{"a"});
  {
    NewFile file(path);
    file.write("half of it");
  }
  CHECK(load_text(path) == "old");
  CHECK(names_in(scratch.path()) == std::set<std::string>{"a"});
}

TEST_CASE("a file that can't be made names its path and the reason") {
  const ScratchFolder scratch;
  CHECK_THROWS_WITH(save_text(scratch.path() / "none/a", ""),
                    Contains("none/a: can't write the file: got No such file or directory"));
  CHECK_THROWS_WITH(save_text(scratch.path(), ""), Contains("is a folder, not a file"));
}

TEST_CASE("names of any length that the system takes, and no two alike beside a path") {
  const ScratchFolder scratch;
  const fs::path longest = scratch.path() / std::string(255, 'x');
  save_text(longest, "text");
  CHECK(load_text(longest) == "text");
  std::set<fs::path> names;
  for (int i = 0; i < 1000; ++i) names.insert(temporary_path(longest));
  CHECK(names.size() == 1000);
  CHECK(temporary_path("a/b").parent_path() == "a");
  CHECK(temporary_path("b").parent_path().empty());
}

TEST_CASE("many writers of one file leave one of their texts, whole") {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a";
  const auto text = [](int i) { return std::string(10'000, static_cast<char>('a' + i)); };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) save_text(path, text(i));
    });
  }
  threads.clear();
  const std::string found = load_text(path);
  CHECK((found == text(0) || found == text(1) || found == text(2) || found == text(3)));
  CHECK(names_in(scratch.path()) == std::set<std::string>{"a"});
}

TEST_CASE("new files have the rights that the user's mask leaves") {
  const ScratchFolder scratch;
  const mode_t before = ::umask(027);
  save_text(scratch.path() / "a", "");
  ::umask(before);
  struct stat status = {};
  REQUIRE(::stat((scratch.path() / "a").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
}

TEST_CASE("of new folders each name is on the disk; of those that are there none is asked for") {
  const ScratchFolder scratch;
  const std::string top = scratch.path().filename().string();
  DiskWatch watch;
  make_folders(scratch.path() / "a/b/c/");
  CHECK(watch->seen == Calls{"sync " + top, "sync a", "sync b"});
  watch->seen.clear();
  make_folders(scratch.path() / "a/b/d");
  CHECK(watch->seen == Calls{"sync b"});
  watch->seen.clear();
  make_folders(scratch.path() / "a/b/d");
  make_folders("");
  CHECK(watch->seen.empty());
  CHECK(fs::is_directory(scratch.path() / "a/b/c"));
}

TEST_CASE("a folder that can't be made names its path and the reason") {
  const ScratchFolder scratch;
  save_text(scratch.path() / "file", "");
  CHECK_THROWS_WITH(make_folders(scratch.path() / "file/b"),
                    Contains("file/b: can't make the folder: got Not a directory"));
  CHECK_THROWS_WITH(make_folders(scratch.path() / "file"),
                    Contains("file: can't make the folder: got Not a directory"));
  std::error_code code;
  make_folders(scratch.path() / "file/b", code);
  CHECK(code == std::errc::not_a_directory);
}

TEST_CASE("a file system that can't sync folders is no error, a disk that fails is one") {
  const ScratchFolder scratch;
  save_text(scratch.path() / "from", "text");
  DiskWatch watch;
  watch->errors["sync"] = EINVAL;
  rename_durably(scratch.path() / "from", scratch.path() / "to");
  CHECK(watch->seen.size() == 2);
  CHECK(load_text(scratch.path() / "to") == "text");
  watch->errors["sync"] = EIO;
  CHECK_THROWS_WITH(rename_durably(scratch.path() / "to", scratch.path() / "from"),
                    scratch.path().string() + ": can't write to the disk: got Input/output error");
  CHECK_THROWS_WITH(rename_durably(scratch.path() / "no", scratch.path() / "from"),
                    Contains("no: can't rename the file: got No such file or directory"));
}

}  // namespace
}  // namespace vlm
