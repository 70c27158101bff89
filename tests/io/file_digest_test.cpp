// Which changes of a file its digest tells.
#include "vlm/io/file_digest.h"

#include <sys/stat.h>

#include <chrono>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

TEST_CASE("a file that is read whole is known by its content alone") {
  const ScratchFolder folder;
  const std::string a = folder.write("a", std::string(100'000, 'x'));
  const std::string b = folder.write("b", std::string(100'000, 'x'));
  fs::last_write_time(b, fs::file_time_type::clock::now() - std::chrono::hours(9));
  CHECK(digest_file(a) == digest_file(b));
  CHECK(digest_file(a).size() == 32);
  std::string text(100'000, 'x');
  text[51'234] = 'y';
  CHECK(digest_file(folder.write("c", text)) != digest_file(a));
  CHECK(digest_file(folder.write("d", "")) != digest_file(folder.write("e", "x")));
}

TEST_CASE("a long file is known by its size, its time and samples of its content") {
  const ScratchFolder folder;
  std::string text(12 << 20, 'x');
  const std::string path = folder.write("long", text);
  const auto digest = [&] { return digest_file(path, 1 << 20); };
  const auto written = fs::last_write_time(path);
  std::set<std::string> seen = {digest()};
  CHECK(digest() == *seen.begin());
  const auto add = [&](const std::string& content, fs::file_time_type time) {
    folder.write("long", content);
    fs::last_write_time(path, time);
    return seen.insert(digest()).second;
  };
  CHECK(add(text + "x", written));
  CHECK(add(text, written + std::chrono::nanoseconds(1000)));
  CHECK_FALSE(add(text, written));  // as before
  for (const std::size_t at : {std::size_t{0}, text.size() - 1}) {
    std::string other = text;
    other[at] = 'y';
    CHECK(add(other, written));
  }
  for (int piece = 0; piece < 11; ++piece) {  // another clip of the same size
    std::string other = text;
    std::fill_n(other.begin() + (piece << 20) + 300'000, 1 << 20, 'z');
    CHECK(add(other, written));
  }
}

TEST_CASE("what is no file has no digest, and one that can't be read is an error") {
  const ScratchFolder folder;
  const std::string pipe = folder.at("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(digest_file(pipe).empty());
  CHECK(digest_file(folder.path()).empty());
  CHECK_THROWS_WITH(digest_file("/nowhere"),
                    "/nowhere: can't read the file: got No such file or directory");
}

}  // namespace
}  // namespace vlm
