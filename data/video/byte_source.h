// Gives libavformat the bytes of one file, so that it never opens anything by name.
//
//   path or "-" ─► ByteSource ─► AVIOContext that reads and seeks
//
// What can't seek (a pipe, a FIFO, a terminal) is first copied to a nameless temporary file,
// because sampling needs the length of the clip. Reads fail when the clock's time is used up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/video/av.h"
#include "data/video/video_file.h"
#include "data/video/work_clock.h"

namespace vlm::data {

class ByteSource {
 public:
  // Throws Error for a file that is missing, unreadable, a folder, empty, or a pipe over its limit.
  // The clock must outlive this.
  ByteSource(const std::filesystem::path& path, const VideoLimits& limits, const WorkClock& clock);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // Back to the start.
  AVIOContext* rewind();

  std::int64_t size() const { return size_; }
  const std::string& where() const { return where_; }

 private:
  void spool(const VideoLimits& limits);
  static int read(void* self, std::uint8_t* buffer, int size);
  static std::int64_t seek(void* self, std::int64_t offset, int whence);

  std::string where_;
  const WorkClock& clock_;
  int descriptor_ = -1;
  bool is_standard_input_ = false;
  std::int64_t size_ = 0;
  std::int64_t at_ = 0;
  AVIOContext* context_ = nullptr;
};

}  // namespace vlm::data
