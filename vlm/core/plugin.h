// Shared objects that are opened on first use: only commands that need a large library pay for
// loading it, and a build may do without it.
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
