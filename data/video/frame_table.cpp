#include "data/video/frame_table.h"

#include <algorithm>
#include <cmath>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// A cut of less than this at the end of a file isn't told from a stream that ends a little early.
constexpr double kCutSeconds = 0.5;

// Beyond this a time stamp is damage, and its arithmetic would overflow.
bool is_sane(std::int64_t time) {
  return time != AV_NOPTS_VALUE && time > -(1LL << 60) && time < 1LL << 60;
}

// VP8's frames that are only for prediction have packets of their own, with a bit that says so.
bool is_never_shown(const AVPacket& packet, AVCodecID codec) {
  if (packet.flags & AV_PKT_FLAG_DISCARD) return true;
  return codec == AV_CODEC_ID_VP8 && (packet.data[0] >> 4 & 1) == 0;
}

// The header promised more time than there are packets for.
bool ends_early(const Container& container) {
  const AVFormatContext& format = container.format();
  if (container.ended_with_error()) return true;
  if (format.duration == AV_NOPTS_VALUE ||
      format.duration_estimation_method == AVFMT_DURATION_FROM_BITRATE) {
    return false;
  }
  const double promised = static_cast<double>(format.duration) / AV_TIME_BASE;
  return container.last_end_s() + kCutSeconds < promised;
}

// Frames that are stored behind the first key frame but shown before it can't be decoded when the
// file begins there.
void drop_leading(FrameTable& table, std::int64_t first_key_pts) {
  const auto first = std::lower_bound(table.pts.begin(), table.pts.end(), first_key_pts);
  table.pts.erase(table.pts.begin(), first);
}

bool has_constant_step(const std::vector<std::int64_t>& times) {
  for (std::size_t i = 2; i < times.size(); ++i) {
    if (times[i] - times[i - 1] != times[1] - times[0]) return false;
  }
  return true;
}

bool ascends(const std::vector<std::int64_t>& times) {
  return std::adjacent_find(times.begin(), times.end(), std::greater_equal<>()) == times.end();
}

}  // namespace

std::int64_t FrameTable::find(std::int64_t time) const {
  const auto found = std::lower_bound(pts.begin(), pts.end(), time);
  return found != pts.end() && *found == time ? found - pts.begin() : -1;
}

std::size_t FrameTable::key_before(std::int64_t time) const {
  const auto after =
      std::upper_bound(keys.begin(), keys.end(), time,
                       [](auto wanted, const KeyFrame& key) { return wanted < key.pts; });
  return after == keys.begin() ? 0 : static_cast<std::size_t>(after - keys.begin() - 1);
}

void check_count(std::size_t count, const VideoLimits& limits, const std::string& where) {
  if (static_cast<std::int64_t>(count) <= limits.max_frames) return;
  throw Error({.what = "video has too many frames",
               .where = where,
               .wanted = concat("at most ", limits.max_frames)});
}

std::optional<FrameTable> read_index(const Container& container, const ByteSource& source) {
  AVStream& stream = container.stream();
  const int count = avformat_index_get_entries_count(&stream);
  if (!container.is_mov() || count < 1 || stream.nb_frames != count) return {};
  if (!is_sane(stream.start_time)) return {};
  FrameTable table;
  table.has_labels = table.is_guess = true;
  table.pts.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const AVIndexEntry* entry = avformat_index_get_entry(&stream, i);
    if (!entry || entry->flags & AVINDEX_DISCARD_FRAME || !is_sane(entry->timestamp)) return {};
    if (entry->pos < 0 || entry->size < 1 || entry->pos > source.size() - entry->size) return {};
    table.pts.push_back(entry->timestamp);
    if (entry->flags & AVINDEX_KEYFRAME) {
      table.keys.push_back({entry->timestamp, entry->timestamp});
    }
  }
  // The index holds decoding times. Where frames change places, only a constant rate tells the
  // times that they are shown at.
  if (!ascends(table.pts) || table.keys.empty() || table.keys[0].dts != table.pts[0]) return {};
  if (stream.codecpar->video_delay > 0 && !has_constant_step(table.pts)) return {};
  const std::int64_t delay = stream.start_time - table.pts[0];
  if (stream.codecpar->video_delay > 0 && delay == 0) return {};  // offsets may be missing
  for (std::int64_t& time : table.pts) time += delay;
  for (KeyFrame& key : table.keys) key.pts += delay;
  return table;
}

FrameTable scan_packets(Container& container, const VideoLimits& limits, const std::string& where) {
  FrameTable table;
  table.has_labels = true;
  const AVCodecID codec = container.stream().codecpar->codec_id;
  std::int64_t last_dts = AV_NOPTS_VALUE;
  bool last_is_partial = false;
  table.lacks_order = container.stream().codecpar->video_delay > 0;
  const auto packet = make_packet();
  while (container.next_packet(*packet)) {
    if (!is_sane(packet->pts)) table.has_labels = false;
    if (packet->dts != AV_NOPTS_VALUE) {
      if (last_dts != AV_NOPTS_VALUE && packet->dts < last_dts) table.has_labels = false;
      last_dts = packet->dts;
    }
    if (!table.has_labels || is_never_shown(*packet, codec)) continue;
    last_is_partial = packet->flags & AV_PKT_FLAG_CORRUPT;
    table.lacks_order = table.lacks_order && packet->pts == packet->dts;
    table.pts.push_back(packet->pts);
    check_count(table.pts.size(), limits, where);
    if (packet->flags & AV_PKT_FLAG_KEY) table.keys.push_back({packet->pts, packet->dts});
  }
  table.truncated = ends_early(container) || last_is_partial;
  if (last_is_partial) table.pts.pop_back();
  std::sort(table.pts.begin(), table.pts.end());
  const auto by_time = [](const KeyFrame& a, const KeyFrame& b) { return a.pts < b.pts; };
  if (!ascends(table.pts) || !std::is_sorted(table.keys.begin(), table.keys.end(), by_time)) {
    table.has_labels = false;
  }
  if (table.has_labels && !table.keys.empty()) drop_leading(table, table.keys[0].pts);
  if (!table.has_labels) table.pts.clear();
  return table;
}

FrameTable scan_frames(Container& container, FrameDecoder& decoder, const VideoLimits& limits,
                       const std::string& where) {
  FrameTable table;
  const auto packet = make_packet();
  const auto frame = make_frame();
  bool more = true;
  while (more) {
    more = container.next_packet(*packet);
    decoder.send(more ? packet.get() : nullptr);
    while (decoder.receive(*frame)) {
      const std::int64_t time = frame->best_effort_timestamp;
      table.pts.push_back(is_sane(time) ? time : AV_NOPTS_VALUE);
    }
    check_count(table.pts.size(), limits, where);
  }
  table.truncated = ends_early(container);
  return table;
}

}  // namespace vlm::data
