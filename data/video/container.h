// One open file's video stream, as packets in the order of the file.
//
//   ByteSource ─► Container ─► next_packet …; jump; restart
//
// The format is told by content. Formats that would open other files or the network are refused
// with an error that names them. The first video stream that is no cover picture is used, as in
// PyAV.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/video/av.h"
#include "data/video/byte_source.h"

namespace vlm::data {

class Container {
 public:
  // Throws Error: not a video, other files named, no video stream, over a limit, corrupt headers.
  Container(ByteSource& source, const VideoLimits& limits, const WorkClock& clock);

  AVFormatContext& format() const { return *format_; }
  AVStream& stream() const { return *format_->streams[stream_index_]; }
  bool is_mov() const;

  // Reads the next packet of the video stream that holds data; false at the end. Throws Error when
  // the time is used up.
  bool next_packet(AVPacket& packet);

  // After next_packet returned false: true if a read error shows that the end of the file is
  // missing.
  bool ended_with_error() const { return end_code_ != AVERROR_EOF; }
  // The end of the latest packet read so far, of any stream, in seconds from the file's start.
  double last_end_s() const;

  // Seeks to a place at or before the time stamp (in the stream's unit) if the format can. The
  // caller must check the time stamp of the next packet.
  bool jump(std::int64_t timestamp);

  // Opens the file again, with all state reset; the next packet is the first.
  void restart();
  // False while no packet has been read since opening.
  bool has_moved() const { return has_moved_; }

 private:
  void open();
  const AVInputFormat* find_format();
  void find_stream();
  void check_limits() const;
  void check_size() const;
  void note_end(const AVPacket& packet);

  ByteSource& source_;
  const VideoLimits limits_;
  const WorkClock& clock_;
  AvOwner<AVFormatContext> format_;
  int stream_index_ = -1;
  int end_code_ = 0;
  std::optional<double> last_end_s_;  // by the file's clock, which begins anywhere
  bool has_moved_ = false;
};

}  // namespace vlm::data
