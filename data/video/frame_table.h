// Which frames a file has and when each is shown, without decoding where that can be known.
//
//   Container ─► read_index | scan_packets | scan_frames ─► FrameTable: times, key frames
//
// read_index uses the index in the header of an MP4 or MOV if it is complete; scan_packets reads
// the packets of the whole file; scan_frames decodes the whole file, when its packets carry no
// usable time stamps. In tables of the first two, a frame is identified by its time stamp. Memory:
// 8 bytes a frame.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/video/container.h"
#include "data/video/decoder.h"

namespace vlm::data {

struct KeyFrame {
  std::int64_t pts = 0;  // guessed by read_index, where leading frames may come before it
  std::int64_t dts = 0;  // AV_NOPTS_VALUE: unknown
};

struct FrameTable {
  std::vector<std::int64_t> pts;  // [frames], ascending; in the stream's unit
  std::vector<KeyFrame> keys;     // ascending
  bool has_labels = false;   // every packet has a pts, all different: frames are identified by it
  bool is_guess = false;     // from the index: the packets may show otherwise
  bool lacks_order = false;  // the codec reorders frames, and no time stamp says how
  bool truncated = false;

  // Index of the frame that is shown at that time stamp, -1 when there is none.
  std::int64_t find(std::int64_t time) const;
  // Index of the last key frame at or before that time stamp; 0 when there is none before.
  std::size_t key_before(std::int64_t time) const;
};

// Throws Error for more frames than the limit.
void check_count(std::size_t count, const VideoLimits& limits, const std::string& where);

// Nothing when the container's index isn't complete.
std::optional<FrameTable> read_index(const Container& container, const ByteSource& source);

// Both read the container from its start to its end, and throw Error for more frames than the
// limit. The table of packets may be empty.
FrameTable scan_packets(Container& container, const VideoLimits& limits, const std::string& where);
FrameTable scan_frames(Container& container, FrameDecoder& decoder, const VideoLimits& limits,
                       const std::string& where);

}  // namespace vlm::data
