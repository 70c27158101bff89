// A video file → chosen frames as RGB, decoding no more than it has to.
//
//   path ─► VideoFile ─► info, frame_times ─► indices ─► read_frames ─► VideoFrame: Image [H, W, 3]
//   u8
//
// Any file that the FFmpeg libraries of the machine can decode, told by its content, never by its
// name. Frame i is the i-th that a full forward decode gives (display order). For each wanted frame
// the key frame before it is looked up and decoding starts there; where that can't be trusted (no
// time stamps, times that jump, key frames that are none) decoding goes forward from the start.
// Pipes and other files without seeking are copied to a nameless temporary file first. No file but
// the one named is ever opened, and no network: playlists and the like are refused.
// Rotation and pixel shape are applied, so a frame is what a player shows. Interlaced frames stay
// interlaced; alpha is left out. docs/video.md says where pixels differ from PyAV's.
// Reference: av.VideoFrame.to_ndarray(format="rgb24"), PyAV 17, on FFmpeg 5.1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vlm/image/image.h"

namespace vlm::data {

// Limits over which a file is refused.
struct VideoLimits {
  std::int64_t max_streams = 256;
  std::int64_t max_pixels = 1LL << 26;   // of one frame; 8192 × 8192
  std::int64_t max_frames = 20'000'000;  // 16 bytes of memory each
  double max_duration_s = 7 * 24 * 3600.0;
  std::int64_t probe_bytes = 5'000'000;      // read to learn what streams there are
  std::int64_t max_spool_bytes = 1LL << 36;  // of a pipe, on disk
  double max_seconds = 3600;                 // of work on one file, without the time in callbacks
  int threads = 4;                           // of the decoder; never more than cores
};

struct VideoInfo {
  std::int64_t frame_count = 0;  // frames of a full decode, by the index or a scan
  double fps = 0;                // average, as PyAV's stream.average_rate; never 0
  double duration_s = 0;         // frame_count / fps, as transformers' metadata says it
  std::int64_t width = 0;        // as shown: turned, square pixels
  std::int64_t height = 0;
  bool constant_rate = false;              // every frame stands within half a frame of index / fps
  bool truncated = false;                  // the end is missing; frame_count counts what is there
  std::int64_t container_frame_count = 0;  // what the header claims; 0: nothing
  std::string container, codec;            // FFmpeg's short names: "mov,mp4,…", "h264"
};

struct VideoFrame {
  Image image;
  double time_s = 0;  // from the first frame's
  std::int64_t index = 0;
};

// Called with ascending indices; return false to end the reading.
using FrameCallback = std::function<bool(VideoFrame)>;

// Can be moved; used by one thread at a time.
class VideoFile {
 public:
  // "-" is standard input. Reads the headers, and the whole file if it has no complete index, so
  // that info and times are known afterwards. Throws Error naming the file and the reason: missing,
  // empty, not a video, no video stream, an unsupported codec, a playlist, over a limit, no whole
  // frame.
  explicit VideoFile(const std::filesystem::path& path, const VideoLimits& limits = {});
  ~VideoFile();
  VideoFile(VideoFile&&) noexcept;
  VideoFile& operator=(VideoFile&&) noexcept;

  const VideoInfo& info() const;

  // Seconds from the first frame's presentation; [frame_count], ascending.
  const std::vector<double>& frame_times() const;

  // Indices of key frames, ascending; empty when they aren't known. If frames are stored in another
  // order than they are shown, those from an MP4's index may be a few frames off.
  std::vector<std::int64_t> key_frames() const;

  // Decodes the frames at `indices` (ascending, unique, each within [0, frame_count)) and gives
  // them to the callback one by one. long_edge: scaled down so that the longer side has at most
  // that many pixels; 0: as stored. A frame that can't be decoded whole is left out, with a
  // warning; returns the number of frames given. Throws Error when none could be decoded, or the
  // time is used up.
  std::int64_t read_frames(const std::vector<std::int64_t>& indices, const FrameCallback& callback,
                           std::int64_t long_edge = 0);

  // How many frames of the last read_frames are damaged. They were left out or, if only the
  // decoder's log speaks against them, given all the same.
  std::int64_t damaged_frames() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

// True for file names with a suffix of videos (.mp4, .mkv, …), in either case. Not .gif, which is
// read as a picture.
bool has_video_suffix(const std::filesystem::path& path);

}  // namespace vlm::data
