#include "data/video/frame_reader.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::data {
namespace {

std::vector<std::uint8_t> pixels_of(const AVFrame& frame) {
  const auto format = static_cast<AVPixelFormat>(frame.format);
  const int size = av_image_get_buffer_size(format, frame.width, frame.height, 1);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(std::max(size, 0)));
  av_image_copy_to_buffer(bytes.data(), size, frame.data, frame.linesize, format, frame.width,
                          frame.height, 1);
  return bytes;
}

}  // namespace

FrameReader::FrameReader(Container& container, const VideoLimits& limits, std::string where)
    : container_(container),
      limits_(limits),
      where_(std::move(where)),
      packet_(make_packet()),
      frame_(make_frame()) {
  start_over();
}

void FrameReader::start_over() {
  if (container_.has_moved()) container_.restart();
  // A new decoder, as some keep pictures across a flush.
  decoder_ = std::make_unique<FrameDecoder>(container_.stream(), limits_, where_);
  holds_frame_ = has_packet_ = has_ended_ = false;
  count_ = 0;
  passed_ = INT64_MIN;
  key_ = 0;
  awaited_key_ = AV_NOPTS_VALUE;
}

const AVFrame* FrameReader::peek() {
  holds_frame_ = holds_frame_ || next_frame();
  return holds_frame_ ? frame_.get() : nullptr;
}

void FrameReader::plan(const FrameTable& table, const std::vector<std::int64_t>& indices) {
  table_ = &table;
  wanted_.clear();
  for (const std::int64_t index : indices)
    wanted_.push_back(table.pts[static_cast<std::size_t>(index)]);
  if (!table.has_labels || table.keys.empty()) trusts_jumps_ = false;
  if (!table.has_labels && holds_frame_) frame_->pts = count_ - 1;
}

// Whatever frame the decoder gives next.
bool FrameReader::next_frame() {
  while (!decoder_->receive(*frame_)) {
    if (has_ended_) return false;
    feed();
  }
  if (table_ && !table_->has_labels) frame_->pts = count_;
  ++count_;
  return true;
}

void FrameReader::feed() {
  if (!has_packet_ && !container_.next_packet(*packet_)) {
    decoder_->send(nullptr);
    has_ended_ = true;
    return;
  }
  has_packet_ = false;
  const std::int64_t pts = packet_->pts;
  const bool may_skip = table_ && trusts_jumps_ && !is_comparing_;
  const bool is_key = packet_->flags & AV_PKT_FLAG_KEY;
  decoder_->skip_unneeded(may_skip && !is_key && !is_wanted(pts));
  if (table_ && is_key) note_key(*packet_);
  decoder_->send(packet_.get());
  // What is held back comes out at once, rather than behind packets that nobody needs.
  if (may_skip && pts == target_ && will_jump_after(pts)) {
    decoder_->send(nullptr);
    has_ended_ = true;
  }
}

void FrameReader::note_key(const AVPacket& packet) {
  const std::vector<KeyFrame>& keys = table_->keys;
  const auto is_reached = [&](const KeyFrame& key) {
    return table_->is_guess ? packet.dts >= key.dts : packet.pts >= key.pts;
  };
  while (key_ + 1 < keys.size() && is_reached(keys[key_ + 1])) ++key_;
}

bool FrameReader::is_wanted(std::int64_t pts) const {
  return std::binary_search(wanted_.begin(), wanted_.end(), pts);
}

// Nothing before the next jump is wanted once the frame of that time stamp is out.
bool FrameReader::will_jump_after(std::int64_t pts) const {
  const auto next = std::upper_bound(wanted_.begin(), wanted_.end(), pts);
  return next == wanted_.end() || table_->key_before(*next) > key_;
}

FrameReader::Step FrameReader::check_frame(std::int64_t pts) {
  const std::int64_t time = frame_->pts;
  if (awaited_key_ != AV_NOPTS_VALUE) {
    if (time < awaited_key_) return Step::kPassed;  // stored behind the key frame, shown before it
    if (time != awaited_key_ || !is_key(*frame_)) return Step::kBadKey;
    awaited_key_ = AV_NOPTS_VALUE;
  }
  const std::int64_t index = table_->find(time);
  if (index < 0 || time < passed_) return Step::kUnknown;  // frames come in the order of the table
  if (is_comparing_ && last_index_ >= 0 && index != last_index_ + 1) return Step::kUnknown;
  last_index_ = index;
  return time == pts ? Step::kFrame : time < pts ? Step::kPassed : Step::kEnd;
}

// Drops frames before the one that is shown at `pts`; one behind it is held.
FrameReader::Step FrameReader::decode_until(std::int64_t pts) {
  while (holds_frame_ || next_frame()) {
    const Step step = check_frame(pts);
    holds_frame_ = step == Step::kEnd;
    if (holds_frame_) return step;
    passed_ = std::max(passed_, frame_->pts);
    if (step != Step::kPassed) return step;
  }
  return Step::kEnd;
}

// Reads packets up to the key frame, which then waits to be fed.
bool FrameReader::land_on(std::size_t key) {
  const KeyFrame& wanted = table_->keys[key];
  while (container_.next_packet(*packet_)) {
    if (!(packet_->flags & AV_PKT_FLAG_KEY)) continue;
    const std::int64_t at = table_->is_guess ? packet_->dts : packet_->pts;
    const std::int64_t place = table_->is_guess ? wanted.dts : wanted.pts;
    if (at == place) {
      awaited_key_ = packet_->pts;
      return has_packet_ = true;
    }
    if (at > place) return false;
  }
  return false;
}

bool FrameReader::jump_to(std::size_t key) {
  // The next key frame isn't far, and any one ahead is reached where the format can't seek.
  const bool reads_on = key > key_ && !has_packet_ && (key == key_ + 1 || !can_seek_);
  decoder_->flush();
  holds_frame_ = has_packet_ = has_ended_ = false;
  passed_ = INT64_MIN;
  last_index_ = -1;
  const KeyFrame& wanted = table_->keys[key];
  key_ = key;
  if (reads_on && land_on(key)) return true;
  if (can_seek_) {
    if (container_.jump(wanted.pts) && land_on(key)) return true;
    if (wanted.dts != AV_NOPTS_VALUE && container_.jump(wanted.dts) && land_on(key)) return true;
  }
  can_seek_ = false;
  container_.restart();
  return land_on(key);
}

// False when jumping failed.
bool FrameReader::position_for(std::int64_t pts) {
  std::size_t key = table_->key_before(pts);
  const bool is_behind = pts <= passed_;
  if (!is_behind && (!trusts_jumps_ || key <= key_)) return true;
  if (!trusts_jumps_ || key == 0) {
    start_over();
    return true;
  }
  do {
    if (!jump_to(key)) return false;
    // Only now is it known when the key frame of a guessed table is shown.
  } while (awaited_key_ > pts && key-- > 0);
  return true;
}

// Decodes the first jump's frame on two ways: through from the key frame before, and from its own.
FrameReader::Step FrameReader::compare_first_jump(std::int64_t pts) {
  const std::size_t key = table_->key_before(pts);
  has_compared_ = key > 0;
  if (key == 0 || decoder_->is_intra_only()) return Step::kPassed;
  is_comparing_ = true;
  last_index_ = -1;
  Step step = Step::kPassed;
  if (key == 1) {
    start_over();
  } else if (!jump_to(key - 1)) {
    step = Step::kBadKey;
  }
  if (step == Step::kPassed) step = decode_until(pts);
  is_comparing_ = false;
  if (step != Step::kFrame) return step == Step::kEnd ? Step::kBadKey : step;
  const std::vector<std::uint8_t> through = pixels_of(*frame_);
  if (!position_for(pts) || decode_until(pts) != Step::kFrame) return Step::kBadKey;
  return pixels_of(*frame_) == through ? Step::kFrame : Step::kBadKey;
}

// Which pictures are flagged depends on how the decoder's threads meet: from the first damage on,
// a single thread tells, which says the same each time.
FrameReader::Step FrameReader::decode_in_one_thread(std::int64_t pts) {
  limits_.threads = 1;
  decoder_ = std::make_unique<FrameDecoder>(container_.stream(), limits_, where_);
  passed_ = std::max(passed_, pts);  // so that positioning goes back
  return position_for(pts) ? decode_until(pts) : Step::kBadKey;
}

bool FrameReader::begins_as(const FrameTable& table, std::size_t count) {
  plan(table, {});
  is_comparing_ = true;
  last_index_ = -1;
  Step step = Step::kPassed;
  for (std::size_t i = 0; i < std::min(count, table.pts.size()) && step != Step::kUnknown; ++i) {
    step = decode_until(table.pts[i]);
  }
  is_comparing_ = false;
  table_ = nullptr;  // until the next plan all frames count
  start_over();
  return step != Step::kUnknown;
}

FrameReader::Outcome FrameReader::read(std::int64_t index, AVFrame& frame) {
  const std::int64_t pts = target_ = table_->pts[static_cast<std::size_t>(index)];
  Step step = Step::kPassed;
  const bool jumps = trusts_jumps_ && (table_->key_before(pts) > key_ || pts <= passed_);
  if (jumps && !has_compared_) step = compare_first_jump(pts);
  if (step == Step::kPassed) step = position_for(pts) ? decode_until(pts) : Step::kBadKey;
  const bool is_suspect = decoder_->has_concealed() || decoder_->health() != FrameHealth::kWhole;
  if (step == Step::kFrame && limits_.threads > 1 && is_suspect) step = decode_in_one_thread(pts);
  // Damage without a whole key frame before it may be the jump's own.
  const bool is_bare = trusts_jumps_ && !decoder_->has_anchor();
  if (step == Step::kFrame && is_bare && is_damaged()) step = Step::kBadKey;
  if (trusts_jumps_ && step != Step::kFrame && step != Step::kUnknown) {
    log_debug(concat(where_, ": jumping to key frames gives wrong frames; decoding forward"));
    trusts_jumps_ = false;
    start_over();
    step = decode_until(pts);
  }
  if (step == Step::kUnknown) return Outcome::kTableIsWrong;
  if (step != Step::kFrame) return Outcome::kMissing;
  if (is_damaged()) return Outcome::kDamaged;
  is_doubtful_ = decoder_->health() == FrameHealth::kDoubtful;
  av_frame_unref(&frame);
  av_frame_move_ref(&frame, frame_.get());
  return Outcome::kFound;
}

}  // namespace vlm::data
