// Shared objects that are opened when they are needed first: what a large library costs in start-up
// is then paid by those who use it, and a build may be without it.
//
//   "vlm_arrow", "vlm_arrow_library" ─► open_plugin ─► address of the function
//
// Looked for in the folder that VLM_PLUGIN_DIR names, else beside the program, in the folder above
// it (a build tree's tests), and where `cmake --install` puts it. Never in the current folder.
#pragma once

#include <string>

namespace vlm {

// `purpose` begins the error's text: "Parquet files". Thread-safe; an object stays open for good.
// Throws Error when there is no such object, it can't be opened, or it lacks the function.
void* open_plugin(const std::string& name, const char* function, const std::string& purpose);

}  // namespace vlm
