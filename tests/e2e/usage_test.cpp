// The commands of docs/usage.md, word for word: every bash block under a "<!-- run -->" mark, one
// after the other.
#include <sstream>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"

namespace {

std::vector<std::string> marked_blocks(const std::string& text) {
  std::vector<std::string> blocks;
  std::istringstream in(text);
  bool is_marked = false, inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line == "<!-- run -->") {
      is_marked = true;
    } else if (is_marked && line == "```bash") {
      blocks.emplace_back();
      inside = true;
      is_marked = false;
    } else if (inside && line == "```") {
      inside = false;
    } else if (inside) {
      blocks.back() += line + "\n";
    }
  }
  return blocks;
}

TEST_CASE("the commands of docs/usage.md run as they stand there") {
  const std::filesystem::path source(VLM_SOURCE_DIR);
  const auto blocks = marked_blocks(read_file(source / "docs/usage.md"));
  REQUIRE(blocks.size() >= 3);
  // A tree of links, so that what the commands write stays out of the source.
  const ScratchFolder folder;
  for (const char* name : {"models", "examples", "configs", "tests", "scripts"}) {
    std::filesystem::create_directory_symlink(source / name, folder.path() / name);
  }
  std::filesystem::create_directory(folder.path() / "build");
  std::filesystem::create_symlink(VLM_BINARY, folder.path() / "build/vlm");
  for (const std::string& block : blocks) {
    INFO(block);
    const ProgramResult result = run_shell("export XDG_CACHE_HOME=cache\n" + block, folder.path());
    INFO(result.err);
    CHECK(result.code == 0);
    CHECK_FALSE((result.out.empty() && result.err.empty()));
  }
}

}  // namespace
