// Finds wanted frames in a file: jumps to the key frame before each, decodes forward, checks.
//
//   FrameTable, ascending indices ─► FrameReader ─► AVFrame
//
// The result of a jump (seek) is checked. The key frame must come out first and with its time
// stamp; and the first jump of a file is compared with decoding forward to the same frame from the
// key frame before. If a check fails, the reader starts again at the beginning and jumps no more:
// frames are then those of a full forward decode, at its cost. Tables without time stamps are read
// that way from the start, by counting frames.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/video/container.h"
#include "data/video/decoder.h"
#include "data/video/frame_table.h"

namespace vlm::data {

class FrameReader {
 public:
  // Starts at the beginning of the container, which was just opened. Both must outlive this.
  FrameReader(Container& container, const VideoLimits& limits, std::string where);

  // The first frame that decodes; it will be read again as the next frame. Null when there is none.
  const AVFrame* peek();

  // Whether the first decoded frames are the first ones of the table, without others between. Goes
  // back to the start afterwards.
  bool begins_as(const FrameTable& table, std::size_t count);

  enum class Outcome { kFound, kMissing, kDamaged, kTableIsWrong };

  // Plans a pass over ascending indices of the table, which must live until the next pass.
  void plan(const FrameTable& table, const std::vector<std::int64_t>& indices);
  // The frame with the next planned index. kMissing: it can't be decoded. kDamaged: parts of it are
  // concealed. kTableIsWrong: the file holds frames that the table doesn't list.
  Outcome read(std::int64_t index, AVFrame& frame);
  // Whether the decoder reported errors on the way to the last frame found.
  bool is_doubtful() const { return is_doubtful_; }

  void start_over();
  // True when jumping was given up or never possible.
  bool reads_forward() const { return !trusts_jumps_; }

 private:
  enum class Step { kFrame, kPassed, kEnd, kUnknown, kBadKey };

  bool is_damaged() const { return decoder_->health() == FrameHealth::kDamaged; }
  bool next_frame();
  void feed();
  void note_key(const AVPacket& packet);
  bool is_wanted(std::int64_t pts) const;
  bool will_jump_after(std::int64_t pts) const;
  Step decode_until(std::int64_t pts);
  Step check_frame(std::int64_t pts);
  bool position_for(std::int64_t pts);
  bool jump_to(std::size_t key);
  bool land_on(std::size_t key);
  Step compare_first_jump(std::int64_t pts);
  Step decode_in_one_thread(std::int64_t pts);

  Container& container_;
  VideoLimits limits_;
  std::string where_;
  std::unique_ptr<FrameDecoder> decoder_;
  AvOwner<AVPacket> packet_;
  AvOwner<AVFrame> frame_;    // the last decoded one
  bool holds_frame_ = false;  // frame_ hasn't been used yet
  const FrameTable* table_ = nullptr;
  std::vector<std::int64_t> wanted_;           // pts of the planned frames
  std::int64_t target_ = 0;                    // what is looked for now
  std::int64_t count_ = 0;                     // of frames that came out since the start
  std::int64_t passed_ = INT64_MIN;            // frames up to this pts have come out
  std::size_t key_ = 0;                        // the last key frame that was fed
  std::int64_t awaited_key_ = AV_NOPTS_VALUE;  // must come out before any later frame
  std::int64_t last_index_ = -1;               // of the frame that came out before, while comparing
  bool has_packet_ = false;                    // packet_ waits to be fed
  bool has_ended_ = false;                     // the decoder was told that no more comes
  bool is_comparing_ = false;
  bool trusts_jumps_ = true;
  bool can_seek_ = true;  // the format finds key frames by time stamp
  bool has_compared_ = false;
  bool is_doubtful_ = false;
};

}  // namespace vlm::data
