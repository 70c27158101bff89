#include <algorithm>
#include <array>

#include "data/video/video_file.h"
#include "vlm/core/ascii.h"

namespace vlm::data {

bool has_video_suffix(const std::filesystem::path& path) {
  const std::string suffix = ascii_lower(path.extension().string());
  constexpr std::array kSuffixes = {".mp4",  ".m4v",  ".mov",  ".mkv",  ".webm", ".avi", ".mpg",
                                    ".mpeg", ".ts",   ".m2ts", ".mts",  ".vob",  ".flv", ".f4v",
                                    ".wmv",  ".asf",  ".ogv",  ".ogm",  ".3gp",  ".3g2", ".mxf",
                                    ".rm",   ".rmvb", ".dv",   ".y4m",  ".ivf",  ".nut", ".h264",
                                    ".h265", ".hevc", ".m2v",  ".divx", ".mjpeg"};
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

}  // namespace vlm::data
