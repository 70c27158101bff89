// What names tell of files that are no pictures for us: kinds that can't be read, and what
// operating systems and editors leave beside pictures.
//
// For searches of folders and archives. A file that a user names is opened whatever its name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace vlm::data {

// How many files there are of each suffix.
using KindCounts = std::map<std::string, std::int64_t>;

// The suffix, in small letters, of a kind of picture that can't be read (".psd"); else "".
std::string unreadable_suffix(const std::filesystem::path& path);

// True for hidden names (".DS_Store", "._photo.jpg", ".ipynb_checkpoints") and for "__MACOSX",
// "Thumbs.db", "@eaDir" and the like. `name` is one part of a path.
bool is_side_name(const std::string& name);
// True when a part of the path is such a name.
bool has_side_name(const std::filesystem::path& path);

// "3 .psd, 1 .svg"
std::string to_text(const KindCounts& counts);

// Tells of what was left out of `where`, in one line; says nothing of nothing.
void warn_of_left_out(const KindCounts& counts, const std::string& where);

}  // namespace vlm::data
