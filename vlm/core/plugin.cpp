#include "vlm/core/plugin.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// The folder of the program or shared object that holds this code.
fs::path own_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&open_plugin), &info) == 0) return {};
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path object = fs::canonical(info.dli_fname, error);
  return (error ? program : object).parent_path();
}

std::vector<fs::path> plugin_folders() {
  if (const char* named = std::getenv("VLM_PLUGIN_DIR"); named && *named) {
    return {fs::absolute(named)};
  }
  std::vector<fs::path> folders;
  if (const fs::path own = own_folder(); own.is_absolute()) {
    folders = {own, own.parent_path(), own.parent_path() / VLM_PLUGIN_LIBDIR};
  }
  folders.emplace_back(VLM_PLUGIN_INSTALLED);
  return folders;
}

}  // namespace

void* open_plugin(const std::string& name, const char* function, const std::string& purpose) {
  for (const fs::path& folder : plugin_folders()) {
    const fs::path path = folder / (name + ".so");
    std::error_code error;
    if (!fs::exists(path, error)) continue;
    void* object = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    void* found = object ? ::dlsym(object, function) : nullptr;
    if (found) return found;
    const char* reason = ::dlerror();
    throw Error({.what = concat(purpose, ": the library for it can't be opened"),
                 .where = path.string(),
                 .got = reason ? reason : "no reason"});
  }
  throw Error({.what = concat(purpose, ": this build is without ", name, ".so"),
               .hint = "scripts/setup && scripts/build make it; VLM_PLUGIN_DIR names its folder"});
}

}  // namespace vlm
