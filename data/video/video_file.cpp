#include "data/video/video_file.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "data/video/byte_source.h"
#include "data/video/container.h"
#include "data/video/converter.h"
#include "data/video/frame_reader.h"
#include "data/video/frame_table.h"
#include "data/video/work_clock.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::data {
namespace {

// As a share: where a header says another rate than the times of the frames, they are right.
constexpr double kRateError = 0.1;

// Enough to see whether packets are frames.
constexpr std::size_t kFirstFrames = 8;

// Each half of an interlaced frame may be a packet.
bool comes_in_fields(const AVStream& stream) {
  return stream.codecpar->field_order > AV_FIELD_PROGRESSIVE;
}

// libav* must talk to our log before any of it runs.
const std::filesystem::path& prepared(const std::filesystem::path& path) {
  redirect_av_messages();
  return path;
}

// The header's average rate as PyAV tells it, unless the times say it is far off.
double rate_of(const AVStream& stream, const std::vector<double>& times) {
  const double measured =
      times.back() > 0 ? static_cast<double>(times.size() - 1) / times.back() : 0;
  for (const AVRational rate : {stream.avg_frame_rate, stream.r_frame_rate}) {
    if (rate.num <= 0 || rate.den <= 0) continue;
    const double told = av_q2d(rate);
    if (measured == 0 || std::abs(told - measured) <= kRateError * measured) return told;
  }
  return measured > 0 ? measured : 1;
}

// The decoder's last frames may come without time stamps: they go on at the last step.
void fill_end(std::vector<std::int64_t>& pts) {
  for (std::size_t i = 2; i < pts.size(); ++i) {
    if (pts[i] == AV_NOPTS_VALUE && pts[i - 2] != AV_NOPTS_VALUE) {
      pts[i] = pts[i - 1] + (pts[i - 1] - pts[i - 2]);
    }
  }
}

// Against the rate that the times themselves have: a header's may be rounded.
bool is_constant_rate(const std::vector<double>& times) {
  if (times.size() < 3) return true;
  const double step = times.back() / static_cast<double>(times.size() - 1);
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (std::abs(times[i] - static_cast<double>(i) * step) > step / 2) return false;
  }
  return true;
}

}  // namespace

class VideoFile::State {
 public:
  State(const std::filesystem::path& path, const VideoLimits& limits);

  const VideoInfo& info() const { return info_; }
  const std::vector<double>& times() const { return times_; }
  std::vector<std::int64_t> key_frames() const;
  std::int64_t read_frames(const std::vector<std::int64_t>& indices, const FrameCallback& callback,
                           std::int64_t long_edge);
  std::int64_t damaged_frames() const {
    return static_cast<std::int64_t>(left_out_.size() + doubtful_.size());
  }

 private:
  void make_table();
  void check_start();
  void scan_frames();
  void set_times();
  void set_info(const AVFrame& first);
  void check_indices(const std::vector<std::int64_t>& indices) const;
  FrameReader::Outcome read_one(std::int64_t index, const std::vector<std::int64_t>& indices);
  void warn_of_damage() const;
  [[noreturn]] void refuse_undecodable(const std::string& reason) const;
  const std::string& where() const { return source_.where(); }

  VideoLimits limits_;
  WorkClock clock_;
  ByteSource source_;
  Container container_;
  Converter converter_;
  FrameTable table_;
  FrameReader reader_;
  AvOwner<AVFrame> frame_ = make_frame();
  std::vector<double> times_;
  std::vector<double> left_out_, doubtful_;  // times of damaged frames, of those wanted last
  VideoInfo info_;
};

VideoFile::State::State(const std::filesystem::path& path, const VideoLimits& limits)
    : limits_(limits),
      clock_(limits.max_seconds, prepared(path) == "-" ? "standard input" : path.string()),
      source_(path, limits, clock_),
      container_(source_, limits, clock_),
      converter_(container_.stream(), limits.max_pixels, source_.where()),
      reader_(container_, limits, source_.where()) {
  make_table();
  check_start();
  set_times();
  set_info(*reader_.peek());
  if (info_.truncated) {
    log_warning(concat(where(), ": the file is truncated; it is read up to ", times_.back(), " s"));
  }
  clock_.stop();
}

void VideoFile::State::make_table() {
  std::optional<FrameTable> table = read_index(container_, source_);
  table_ = table ? std::move(*table) : scan_packets(container_, limits_, where());
  check_count(table_.pts.size(), limits_, where());
  if (!table_.has_labels) scan_frames();
}

// What the decoder gives first must be what the table says, or the table says too much.
void VideoFile::State::check_start() {
  if (container_.has_moved()) reader_.start_over();
  const AVFrame* first = reader_.peek();
  if (!first) refuse_undecodable("no frame can be decoded");
  if (!table_.has_labels) return;
  const std::int64_t index = table_.find(first->pts);
  if (index == 0 && !comes_in_fields(container_.stream()) && !table_.lacks_order) return;
  if (index == 0 && reader_.begins_as(table_, kFirstFrames)) return;
  if (table_.is_guess) {
    container_.restart();
    table_ = scan_packets(container_, limits_, where());
    if (!table_.has_labels) scan_frames();
    return check_start();
  }
  if (index > 0) {
    table_.pts.erase(table_.pts.begin(), table_.pts.begin() + index);
    return;
  }
  scan_frames();
  check_start();
}

// Numbers the frames by decoding them all; time stamps are only good for times.
void VideoFile::State::scan_frames() {
  log_debug(concat(where(), ": time stamps don't tell the frames; decoding all to count them"));
  if (container_.has_moved()) container_.restart();
  const bool truncated = table_.truncated;
  FrameDecoder decoder(container_.stream(), limits_, where());
  table_ = vlm::data::scan_frames(container_, decoder, limits_, where());
  table_.truncated = table_.truncated || truncated;
  if (table_.pts.empty()) refuse_undecodable("no frame can be decoded");
}

void VideoFile::State::refuse_undecodable(const std::string& reason) const {
  throw Error({.what = "truncated or corrupt video file", .where = where(), .got = reason});
}

void VideoFile::State::set_times() {
  const AVStream& stream = container_.stream();
  std::vector<std::int64_t>& pts = table_.pts;
  if (!table_.has_labels) fill_end(pts);
  const bool ascend =
      std::adjacent_find(pts.begin(), pts.end(), std::greater_equal<>()) == pts.end();
  const bool usable = ascend && pts.front() != AV_NOPTS_VALUE;
  times_.resize(pts.size());
  for (std::size_t i = 0; i < pts.size(); ++i) {
    times_[i] = usable ? static_cast<double>(pts[i] - pts[0]) * av_q2d(stream.time_base) : 0;
  }
  info_.fps = rate_of(stream, times_);
  if (!usable) {
    for (std::size_t i = 0; i < pts.size(); ++i) times_[i] = static_cast<double>(i) / info_.fps;
  }
  if (!table_.has_labels) std::iota(pts.begin(), pts.end(), 0);
}

void VideoFile::State::set_info(const AVFrame& first) {
  const AVStream& stream = container_.stream();
  const FrameShape shape = converter_.shape_of(first);
  info_.frame_count = static_cast<std::int64_t>(times_.size());
  info_.duration_s = static_cast<double>(info_.frame_count) / info_.fps;
  info_.width = shape.width;
  info_.height = shape.height;
  info_.constant_rate = is_constant_rate(times_);
  info_.truncated = table_.truncated;
  info_.container_frame_count = stream.nb_frames;
  info_.container = container_.format().iformat->name;
  info_.codec = avcodec_get_name(stream.codecpar->codec_id);
  if (times_.back() <= limits_.max_duration_s) return;
  throw Error({.what = "video is too long",
               .where = where(),
               .got = concat(times_.back(), " s"),
               .wanted = concat("at most ", limits_.max_duration_s, " s")});
}

void VideoFile::State::check_indices(const std::vector<std::int64_t>& indices) const {
  if (indices.empty()) return;
  const bool ascend =
      std::adjacent_find(indices.begin(), indices.end(), std::greater_equal<>()) == indices.end();
  if (ascend && indices.front() >= 0 && indices.back() < info_.frame_count) return;
  throw Error({.what = "indices of frames don't fit the video",
               .where = where(),
               .got = join(indices),
               .wanted = concat("ascending ones below ", info_.frame_count)});
}

std::vector<std::int64_t> VideoFile::State::key_frames() const {
  std::vector<std::int64_t> indices;
  for (const KeyFrame& key : table_.keys) {
    if (const std::int64_t index = table_.find(key.pts); index >= 0) indices.push_back(index);
  }
  return indices;
}

FrameReader::Outcome VideoFile::State::read_one(std::int64_t index,
                                                const std::vector<std::int64_t>& indices) {
  FrameReader::Outcome outcome = reader_.read(index, *frame_);
  if (outcome != FrameReader::Outcome::kTableIsWrong) return outcome;
  scan_frames();
  if (static_cast<std::int64_t>(table_.pts.size()) < info_.frame_count) {
    log_warning(concat(where(), ": ", table_.pts.size(), " of ", info_.frame_count,
                       " promised frames are there"));
  }
  // Asked-for indices stay valid; those behind the end are missing.
  table_.pts.resize(static_cast<std::size_t>(info_.frame_count));
  std::iota(table_.pts.begin(), table_.pts.end(), 0);
  reader_.plan(table_, indices);
  reader_.start_over();
  return reader_.read(index, *frame_);
}

std::int64_t VideoFile::State::read_frames(const std::vector<std::int64_t>& indices,
                                           const FrameCallback& callback, std::int64_t long_edge) {
  check_indices(indices);
  reader_.plan(table_, indices);
  left_out_.clear();
  doubtful_.clear();
  std::int64_t count = 0;
  for (const std::int64_t index : indices) {
    VideoFrame found{.time_s = times_[static_cast<std::size_t>(index)], .index = index};
    {
      const WorkClock::Running running(clock_);
      if (read_one(index, indices) != FrameReader::Outcome::kFound) {
        left_out_.push_back(found.time_s);
        continue;
      }
      if (reader_.is_doubtful()) doubtful_.push_back(found.time_s);
      found.image = converter_.convert(*frame_, long_edge);
      av_frame_unref(frame_.get());
    }
    ++count;
    if (!callback(std::move(found))) break;
  }
  if (count == 0 && !indices.empty()) refuse_undecodable("none of the wanted frames is whole");
  warn_of_damage();
  return count;
}

void VideoFile::State::warn_of_damage() const {
  const auto times = [](std::vector<double> found) {
    const std::size_t count = found.size();
    found.resize(std::min<std::size_t>(count, 8));
    return concat(count, ", at ", join(found), count > 8 ? ", … s" : " s");
  };
  if (!left_out_.empty()) {
    log_warning(concat(where(), ": damaged frames are left out: ", times(left_out_)));
  }
  if (!doubtful_.empty()) {
    log_warning(
        concat(where(), ": frames may be damaged, as the decoder complained: ", times(doubtful_)));
  }
}

VideoFile::VideoFile(const std::filesystem::path& path, const VideoLimits& limits)
    : state_(std::make_unique<State>(path, limits)) {}
VideoFile::~VideoFile() = default;
VideoFile::VideoFile(VideoFile&&) noexcept = default;
VideoFile& VideoFile::operator=(VideoFile&&) noexcept = default;

const VideoInfo& VideoFile::info() const {
  return state_->info();
}

const std::vector<double>& VideoFile::frame_times() const {
  return state_->times();
}

std::vector<std::int64_t> VideoFile::key_frames() const {
  return state_->key_frames();
}

std::int64_t VideoFile::read_frames(const std::vector<std::int64_t>& indices,
                                    const FrameCallback& callback, std::int64_t long_edge) {
  return state_->read_frames(indices, callback, long_edge);
}

std::int64_t VideoFile::damaged_frames() const {
  return state_->damaged_frames();
}

}  // namespace vlm::data
