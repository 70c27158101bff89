// Folders, globs and lists with odd paths in them: each costs its own entry, none the run.
#include "infer/items/path_search.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "infer/items/entry_source.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// The superuser may read everything; while this lives the test is nobody.
class AsNobody {
 public:
  explicit AsNobody(const fs::path& folder) : was_root_(::geteuid() == 0) {
    const auto readable = fs::perms::group_read | fs::perms::group_exec | fs::perms::others_read |
                          fs::perms::others_exec;
    fs::permissions(folder, readable, fs::perm_options::add);
    if (was_root_) REQUIRE(::seteuid(65534) == 0);
  }
  ~AsNobody() {
    if (was_root_ && ::seteuid(0) != 0) std::abort();
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;

 private:
  const bool was_root_;
};

struct Opened {
  std::string text;  // "name: error" lines, without the folder
  std::string warnings;
};

Opened open_all(const std::vector<std::string>& arguments, const fs::path& folder,
                MediaKind kind = MediaKind::kPicture, const std::string& list = "") {
  Opened opened;
  set_log_sink([&](LogLevel level, const std::string& text) {
    if (level == LogLevel::kWarning) opened.warnings += text + "\n";
  });
  std::istringstream in(list);
  const auto source = open_entries(arguments, in, kind);
  set_log_sink({});
  for (std::int64_t i = 0; i < source->size(); ++i) {
    const Entry entry = source->at(i);
    CHECK(entry.media.empty() == !entry.error.empty());
    std::string error = entry.error;
    if (error.starts_with(entry.path)) error = error.substr(entry.path.size());
    opened.text += fs::path(entry.id).lexically_relative(folder).string() + error + "\n";
  }
  return opened;
}

const std::string kLoop = ": can't open the file: got Too many levels of symbolic links\n";

TEST_CASE("odd paths in a folder are rows of their own") {
  const ScratchFolder scratch;
  const fs::path in = scratch.path() / "in";
  scratch.write("in/a.png", "x");
  scratch.write("in/deep/b.png", "x");
  scratch.write("elsewhere/c.png", "x");
  fs::create_symlink("loop.png", in / "loop.png");
  fs::create_symlink("circle", in / "circle");
  fs::create_symlink("nowhere.png", in / "dangling.png");
  fs::create_symlink(scratch.path() / "elsewhere/c.png", in / "link.png");
  fs::create_directory_symlink(scratch.path() / "elsewhere", in / "linked");
  REQUIRE(::mkfifo((in / "pipe.png").c_str(), 0600) == 0);
  const Opened all = open_all({in.string()}, in);
  CHECK(all.text ==
        "a.png\n"
        "circle: can't follow the link: got Too many levels of symbolic links\n"
        "dangling.png: the link leads nowhere\n"
        "deep/b.png\n"
        "link.png\n"
        "loop.png" +
            kLoop + "pipe.png: is not a file\n");
  CHECK(all.warnings ==
        "links to folders aren't followed: 1 (they may lead in circles; name them "
        "to have them searched)\n");
  CHECK(open_all({(in / "linked").string()}, in / "linked").text == "c.png\n");
}

TEST_CASE("odd paths that are named, matched or listed are rows of their own") {
  const ScratchFolder scratch;
  const fs::path in = scratch.path();
  scratch.write("a.png", "x");
  fs::create_symlink("loop.png", in / "loop.png");
  fs::create_symlink("nowhere.png", in / "dangling.png");
  const std::string long_name(300, 'n');
  const std::string expected = "a.png\ndangling.png\nloop.png\n";  // told when they are opened
  const auto at = [&](const char* name) { return scratch.at(name); };
  CHECK(open_all({at("a.png"), at("dangling.png"), at("loop.png")}, in).text == expected);
  CHECK(open_all({at("*.png")}, in).text == expected);
  CHECK(open_all({at("a.png"), at(long_name.c_str())}, in).text == "a.png\n" + long_name + "\n");
  CHECK(open_all({"-"}, in, MediaKind::kPicture, at("loop.png") + "\n" + at(long_name.c_str()))
            .text == "loop.png\n" + long_name + "\n");
  CHECK_THROWS_WITH(open_all({at("nowhere.png")}, in), Contains("no such file or folder"));
  set_log_sink({});
}

TEST_CASE("a locked folder is a row, and what lies beside it is read") {
  const ScratchFolder scratch;
  const fs::path in = scratch.path() / "in";
  scratch.write("in/a.png", "x");
  scratch.write("in/locked/b.png", "x");
  fs::create_symlink(in / "locked/b.png", in / "into.png");
  fs::permissions(in / "locked", fs::perms::none);
  {
    const AsNobody nobody(scratch.path());
    const std::string denied = ": can't read the folder: got Permission denied\n";
    CHECK(open_all({in.string()}, in).text ==
          "a.png\ninto.png: can't open the file: got Permission denied\nlocked" + denied);
    CHECK(open_all({(in / "*/*.png").string()}, in).text == "into.png\nlocked" + denied);
    CHECK(open_all({(in / "**/*.png").string()}, in).text == "a.png\ninto.png\nlocked" + denied);
    CHECK(open_all({(in / "locked/b.png").string(), (in / "a.png").string()}, in).text ==
          "locked/b.png\na.png\n");
    CHECK(open_all({(in / "locked").string()}, in).text == "locked" + denied);
  }
  fs::permissions(in / "locked", fs::perms::owner_all);
}

TEST_CASE("kinds of pictures that can't be read are counted") {
  const ScratchFolder scratch;
  const fs::path in = scratch.path();
  for (const char* name : {"a.png", "b.jxl", "c.JXL", "d.psd", "e.ico", "f.dng", "notes.txt"}) {
    scratch.write(name, "x");
  }
  const Opened all = open_all({in.string()}, in);
  CHECK(all.text == "a.png\n");
  CHECK(all.warnings ==
        "the input: left out, as these kinds of pictures can't be read: 1 .dng, 1 .ico, "
        "2 .jxl, 1 .psd\n");
  std::istringstream none;
  CHECK(open_entries({in.string()}, none)->left_out().at(".jxl") == 2);
  // One that is named is opened, and says itself what it is.
  CHECK(open_all({scratch.at("b.jxl")}, in).text == "b.jxl\n");
  fs::remove(in / "a.png");
  CHECK_THROWS_WITH(open_all({in.string()}, in),
                    Contains("no pictures in the folder: got 1 .dng, 1 .ico, 2 .jxl") &&
                        Contains("(these kinds can't be read)"));
  set_log_sink({});
  scratch.write("clip.mp4", "x");
  const Opened videos = open_all({in.string()}, in, MediaKind::kVideo);
  CHECK(videos.text == "clip.mp4\n");
  CHECK(videos.warnings.empty());
}

TEST_CASE("hidden names and what systems leave are no pictures, unless named") {
  const ScratchFolder scratch;
  const fs::path in = scratch.path();
  for (const char* name :
       {"a.png", "._a.png", ".DS_Store", ".h.png", "Thumbs.db", ".ipynb_checkpoints/a.png",
        "__MACOSX/a.png", "@eaDir/a.png", ".heic.heic", "deep/.git/x.png"}) {
    scratch.write(name, "x");
  }
  CHECK(open_all({in.string()}, in).text == "a.png\n");
  CHECK(open_all({in.string()}, in).warnings.empty());
  CHECK(open_all({(in / "**/*.png").string()}, in).text == "a.png\n");
  CHECK(
      open_all({scratch.at(".h.png"), scratch.at(".ipynb_checkpoints"), scratch.at("__MACOSX")}, in)
          .text == ".h.png\n.ipynb_checkpoints/a.png\n__MACOSX/a.png\n");
}

}  // namespace
}  // namespace vlm::infer
