// One open file's video stream, as packets in the order of the file.
//
//   ByteSource ─► Container ─► next_packet …; jump; restart
//
// The format is told by content. What would open other files or the network is refused by name, and
// could open nothing anyway. The first video stream that is no cover picture counts, as in PyAV.
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

  // The next packet of the video stream that holds data, or false at the end. Throws when time has
  // run out.
  bool next_packet(AVPacket& packet);

  // When next_packet ended: that the file ended before its data did, by a read error.
  bool ended_with_error() const { return end_code_ != AVERROR_EOF; }
  // The last moment that any packet read so far covers, in seconds from the file's start; of all
  // streams.
  double last_end_s() const;

  // Moves to a place at or before the time stamp (in the stream's unit) if the format can. Where
  // the next packet really is, is for the caller to see.
  bool jump(std::int64_t timestamp);

  // Opens the file again: the next packet is the first, and all state is as it was.
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
