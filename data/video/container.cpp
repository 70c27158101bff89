#include "data/video/container.h"

#include <algorithm>
#include <array>
#include <new>
#include <string_view>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Formats that name other files or addresses, by FFmpeg's name (the first of several).
constexpr std::array<std::string_view, 14> kReferring = {
    "hls",         "dash",    "concat", "concatf", "sdp",        "rtsp",
    "image2",      "imf",     "sap",    "vobsub",  "ffmetadata", "webm_dash_manifest",
    "vapoursynth", "avisynth"};
// Text shown as pictures: any text file would be a video.
constexpr std::array<std::string_view, 4> kText = {"tty", "bin", "xbin", "adf"};

template <class Names>
bool is_among(const AVInputFormat& format, const Names& names) {
  return std::find(names.begin(), names.end(), std::string_view(format.name)) != names.end();
}

int refuse_to_open(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EPERM);
}

Error not_a_video(const std::string& where) {
  return Error({.what = "not a video", .where = where, .wanted = "a format that FFmpeg can read"});
}

// Of a file without a video stream, what it has instead.
std::string describe_streams(const AVFormatContext& format) {
  std::string text;
  for (unsigned i = 0; i < format.nb_streams; ++i) {
    const AVCodecParameters& stream = *format.streams[i]->codecpar;
    const char* type = av_get_media_type_string(stream.codec_type);
    text += concat(text.empty() ? "" : ", ", avcodec_get_name(stream.codec_id), " ",
                   format.streams[i]->disposition & AV_DISPOSITION_ATTACHED_PIC ? "cover picture"
                   : type                                                       ? type
                                                                                : "data");
    if (i == 7) break;
  }
  return text.empty() ? "no stream" : text;
}

// Options for the decoders that libavformat itself opens to learn what streams hold.
class StreamOptions {
 public:
  StreamOptions(unsigned count, std::int64_t max_pixels) : options_(count, nullptr) {
    for (AVDictionary*& entry : options_) av_dict_set_int(&entry, "max_pixels", max_pixels, 0);
  }
  ~StreamOptions() {
    for (AVDictionary*& entry : options_) av_dict_free(&entry);
  }
  StreamOptions(const StreamOptions&) = delete;
  StreamOptions& operator=(const StreamOptions&) = delete;
  AVDictionary** get() { return options_.data(); }

 private:
  std::vector<AVDictionary*> options_;
};

}  // namespace

Container::Container(ByteSource& source, const VideoLimits& limits, const WorkClock& clock)
    : source_(source), limits_(limits), clock_(clock) {
  open();
}

bool Container::is_mov() const {
  return std::string_view(format_->iformat->name).starts_with("mov,");
}

void Container::restart() {
  format_.reset();
  open();
}

void Container::open() {
  forget_av_message();
  AVIOContext* bytes = source_.rewind();
  const AVInputFormat* input = nullptr;
  const int score = av_probe_input_buffer2(bytes, &input, "", nullptr, 0,
                                           static_cast<unsigned>(limits_.probe_bytes));
  clock_.check();
  if (score < 0 || !input || is_among(*input, kText)) throw not_a_video(source_.where());
  if (is_among(*input, kReferring)) {
    throw Error({.what = "a file that names other files",
                 .where = source_.where(),
                 .got = input->name,
                 .wanted = "a video in the file itself"});
  }
  AVFormatContext* format = avformat_alloc_context();
  if (!format) throw std::bad_alloc();
  format->pb = bytes;
  format->io_open = refuse_to_open;
  format->probesize = limits_.probe_bytes;
  const int code = avformat_open_input(&format, "", input, nullptr);  // frees it when it fails
  clock_.check();
  if (code < 0) {
    if (score < AVPROBE_SCORE_RETRY) throw not_a_video(source_.where());
    throw Error({.what = "truncated or corrupt video file",
                 .where = source_.where(),
                 .got = av_reason(code)});
  }
  format_.reset(format);
  const unsigned streams = format->nb_streams;
  check_limits();
  StreamOptions options(streams, limits_.max_pixels);
  avformat_find_stream_info(format, options.get());  // what it can't learn is seen below
  clock_.check();
  check_limits();
  find_stream();
  if (stream_index_ < 0) {
    if (score < AVPROBE_SCORE_RETRY) throw not_a_video(source_.where());
    throw Error(
        {.what = "no video stream", .where = source_.where(), .got = describe_streams(*format)});
  }
  check_size();
  end_code_ = 0;
  last_end_s_.reset();
  has_moved_ = false;
}

void Container::check_size() const {
  const AVCodecParameters& stream = *format_->streams[stream_index_]->codecpar;
  if (stream.width <= 0 || stream.height <= limits_.max_pixels / stream.width) return;
  throw Error({.what = "video has too many pixels",
               .where = source_.where(),
               .got = concat(stream.width, " × ", stream.height),
               .wanted = concat("at most ", limits_.max_pixels)});
}

void Container::find_stream() {
  stream_index_ = -1;
  for (unsigned i = 0; i < format_->nb_streams; ++i) {
    const AVStream& stream = *format_->streams[i];
    if (stream.codecpar->codec_type != AVMEDIA_TYPE_VIDEO) continue;
    if (stream.disposition & AV_DISPOSITION_ATTACHED_PIC) continue;
    stream_index_ = static_cast<int>(i);
    return;
  }
}

void Container::check_limits() const {
  if (format_->nb_streams > limits_.max_streams) {
    throw Error({.what = "video file has too many streams",
                 .where = source_.where(),
                 .got = concat(format_->nb_streams),
                 .wanted = concat("at most ", limits_.max_streams)});
  }
  const double duration_s = static_cast<double>(format_->duration) / AV_TIME_BASE;
  if (format_->duration != AV_NOPTS_VALUE && duration_s > limits_.max_duration_s) {
    throw Error({.what = "video is too long",
                 .where = source_.where(),
                 .got = concat(duration_s, " s"),
                 .wanted = concat("at most ", limits_.max_duration_s, " s")});
  }
}

void Container::note_end(const AVPacket& packet) {
  const std::int64_t time = packet.pts != AV_NOPTS_VALUE ? packet.pts : packet.dts;
  if (time == AV_NOPTS_VALUE) return;
  const AVRational unit = format_->streams[packet.stream_index]->time_base;
  const double end =
      (static_cast<double>(time) + static_cast<double>(packet.duration)) * av_q2d(unit);
  last_end_s_ = std::max(last_end_s_.value_or(end), end);
}

double Container::last_end_s() const {
  if (!last_end_s_) return 0;
  // Clocks of 33 bits (MPEG-TS, MPEG-PS) that begin again within the file are counted below zero
  // before that.
  const bool is_known = format_->start_time != AV_NOPTS_VALUE;
  return *last_end_s_ - (is_known ? static_cast<double>(format_->start_time) / AV_TIME_BASE : 0);
}

bool Container::next_packet(AVPacket& packet) {
  while (true) {
    clock_.check();
    av_packet_unref(&packet);
    has_moved_ = true;
    const int code = av_read_frame(format_.get(), &packet);
    if (code == AVERROR(EAGAIN)) continue;
    if (code < 0) {
      clock_.check();
      end_code_ = code;
      return false;
    }
    note_end(packet);
    if (packet.stream_index == stream_index_ && packet.size > 0) return true;
  }
}

bool Container::jump(std::int64_t timestamp) {
  has_moved_ = true;
  return av_seek_frame(format_.get(), stream_index_, timestamp, AVSEEK_FLAG_BACKWARD) >= 0;
}

}  // namespace vlm::data
