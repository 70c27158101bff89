// VideoFile of a build without FFmpeg's libraries (VLM_VIDEO=OFF): every clip is refused.
#include "data/video/video_file.h"

#include "vlm/core/error.h"

namespace vlm::data {

class VideoFile::State {};

namespace {

[[noreturn]] void refuse(const std::string& where) {
  throw Error({.what = "this build reads no clips",
               .where = where,
               .hint = "it was made without FFmpeg's libraries: VLM_VIDEO=OFF"});
}

}  // namespace

VideoFile::VideoFile(const std::filesystem::path& path, const VideoLimits&) {
  refuse(path.string());
}
VideoFile::~VideoFile() = default;
VideoFile::VideoFile(VideoFile&&) noexcept = default;
VideoFile& VideoFile::operator=(VideoFile&&) noexcept = default;

// None of these is reached, as there is no object.
const VideoInfo& VideoFile::info() const {
  refuse("");
}
const std::vector<double>& VideoFile::frame_times() const {
  refuse("");
}
std::vector<std::int64_t> VideoFile::key_frames() const {
  refuse("");
}
std::int64_t VideoFile::read_frames(const std::vector<std::int64_t>&, const FrameCallback&,
                                    std::int64_t) {
  refuse("");
}
std::int64_t VideoFile::damaged_frames() const {
  refuse("");
}

}  // namespace vlm::data
