#include "data/media/file_kinds.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::data {
namespace {

constexpr std::array<std::string_view, 23> kUnreadable = {
    ".jpm", ".jxl", ".jxr", ".psd", ".svg", ".ico", ".tga", ".pcx", ".dds",  ".xcf", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".icns", ".qoi", ".pfm"};

// Beside hidden names.
constexpr std::array<std::string_view, 7> kSideNames = {
    "__MACOSX",  "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information",
    "lost+found"};

}  // namespace

std::string unreadable_suffix(const std::filesystem::path& path) {
  const std::string suffix = ascii_lower(path.extension().string());
  const bool is_known =
      std::find(kUnreadable.begin(), kUnreadable.end(), suffix) != kUnreadable.end();
  return is_known ? suffix : "";
}

bool is_side_name(const std::string& name) {
  if (name == "." || name == "..") return false;
  return name.starts_with('.') ||
         std::find(kSideNames.begin(), kSideNames.end(), name) != kSideNames.end();
}

bool has_side_name(const std::filesystem::path& path) {
  return std::any_of(path.begin(), path.end(),
                     [](const auto& part) { return is_side_name(part.string()); });
}

std::string to_text(const KindCounts& counts) {
  std::vector<std::string> parts;
  for (const auto& [suffix, count] : counts) parts.push_back(concat(count, " ", suffix));
  return join(parts);
}

void warn_of_left_out(const KindCounts& counts, const std::string& where) {
  if (counts.empty()) return;
  log_warning(
      concat(where, ": left out, as these kinds of pictures can't be read: ", to_text(counts)));
}

}  // namespace vlm::data
