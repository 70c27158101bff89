// The installed package: its files, and the programs of docs/library.md built and run against it.
#include <map>
#include <set>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"

namespace {

namespace fs = std::filesystem;

// Code blocks under "<!-- build FILE -->" and outputs under "<!-- prints FILE -->".
struct Page {
  std::map<std::string, std::string> files, outputs;
};

Page read_page(const fs::path& path) {
  Page page;
  std::istringstream in(read_file(path));
  std::string* target = nullptr;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("<!-- ")) {
      std::istringstream words(line);
      std::string mark, kind, name;
      words >> mark >> kind >> name;
      target = kind == "build"    ? &page.files[name]
               : kind == "prints" ? &page.outputs[name]
                                  : nullptr;
    } else if (line.starts_with("```")) {
      if (inside) target = nullptr;
      inside = !inside;
    } else if (inside && target) {
      *target += line + "\n";
    }
  }
  return page;
}

std::set<std::string> files_below(const fs::path& folder) {
  std::set<std::string> files;
  for (const auto& item : fs::recursive_directory_iterator(folder)) {
    if (!item.is_directory()) files.insert(fs::relative(item.path(), folder).string());
  }
  return files;
}

void run_well(const std::string& command, const fs::path& place) {
  const ProgramResult result = run_shell(command, place);
  INFO(command << "\n" << result.out << result.err);
  REQUIRE(result.code == 0);
}

// Installs and moves the result, so that nothing can rely on where it was installed.
fs::path install(const ScratchFolder& scratch) {
  run_well("cmake --install '" VLM_BUILD_FOLDER "' --prefix '" + scratch.at("first") + "'",
           scratch.path());
  fs::rename(scratch.path() / "first", scratch.path() / "prefix");
  return scratch.path() / "prefix";
}

// The page's project with a target for each further program.
void write_project(const Page& page, const ScratchFolder& scratch) {
  for (const auto& [name, text] : page.files) scratch.write("project/" + name, text);
  std::string more = page.files.at("CMakeLists.txt");
  for (const auto& [name, text] : page.outputs) {
    const std::string target = fs::path(name).stem();
    if (target == "ask") continue;  // the page's own
    more += "add_executable(" + target + " " + name + ")\ntarget_link_libraries(" + target +
            " PRIVATE vlm::vlm)\n";
  }
  more += "add_library(light OBJECT light.cpp)\ntarget_link_libraries(light PRIVATE vlm::vlm)\n";
  scratch.write("project/CMakeLists.txt", more);
  scratch.write("project/light.cpp",
                "#include <vlm/core/log.h>\n#include <vlm/vlm.h>\n"
                "#if __has_include(<ATen/ATen.h>) || __has_include(<infer/vlm.h>)\n"
                "#error the package shows more than the public headers\n#endif\n");
}

TEST_CASE(
    "the documented programs build against the installed package and print what the page says") {
  const ScratchFolder scratch;
  const fs::path prefix = install(scratch);
  CHECK(files_below(prefix / "include") ==
        std::set<std::string>{"vlm/core/error.h", "vlm/core/log.h", "vlm/vlm.h"});

  const fs::path source(VLM_SOURCE_DIR);
  for (const char* name : {"models", "examples"}) {
    fs::create_directory_symlink(source / name, scratch.path() / name);
  }
  // From another folder and without an environment: the program finds LibTorch by itself.
  const std::string vlm = "env -i '" + (prefix / "bin/vlm").string() + "' ";
  run_well(vlm + "inspect models/easy-vqa-emoji", scratch.path());

  const Page page = read_page(source / "docs/library.md");
  REQUIRE(page.files.size() >= 6);
  REQUIRE(page.outputs.size() + 1 == page.files.size());  // every program has an output
  write_project(page, scratch);
  run_well("cmake -S project -B build -G Ninja -DCMAKE_PREFIX_PATH='" + prefix.string() +
               "' -DCMAKE_CXX_COMPILER='" VLM_CXX_COMPILER "' -DCMAKE_CXX_FLAGS='" VLM_CXX_FLAGS
               "'",
           scratch.path());
  run_well("cmake --build build -j 2", scratch.path());
  for (const auto& [name, output] : page.outputs) {
    INFO(name);
    const ProgramResult result =
        run_shell("exec build/" + fs::path(name).stem().string(), scratch.path());
    CHECK(result.err.empty());
    CHECK(result.out == output);
    CHECK(result.code == 0);
  }
}

TEST_CASE("the package refuses a LibTorch of another version") {
  const ScratchFolder scratch;
  const fs::path prefix = install(scratch);
  const std::string config = (prefix / "lib/cmake/vlm/vlmConfig.cmake").string();
  run_well("sed -i 's/VLM_LIBTORCH_VERSION [0-9.]*/VLM_LIBTORCH_VERSION 1.2.3/' '" + config + "'",
           scratch.path());
  scratch.write("project/CMakeLists.txt",
                "cmake_minimum_required(VERSION 3.25)\nproject(x LANGUAGES CXX)\n"
                "find_package(vlm REQUIRED)\n");
  const ProgramResult result =
      run_shell("cmake -S project -B build -G Ninja -DCMAKE_PREFIX_PATH='" + prefix.string() + "'",
                scratch.path());
  CHECK(result.code != 0);
  CHECK_THAT(result.err, Contains("Found unsuitable version"));
}

}  // namespace
