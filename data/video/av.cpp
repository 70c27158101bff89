#include "data/video/av.h"

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

#include "vlm/core/log.h"

namespace vlm::data {
namespace {

thread_local std::string t_last_error;

// A decoder's context carries the counts of its FrameDecoder; those that libavformat opens for
// itself carry none.
DecoderMessages* counts_of(void* context) {
  const AVClass* type = context ? *static_cast<const AVClass**>(context) : nullptr;
  if (!type || std::strcmp(type->class_name, "AVCodecContext") != 0) return nullptr;
  return static_cast<DecoderMessages*>(static_cast<AVCodecContext*>(context)->opaque);
}

// Words about what a file says beside its pictures are no complaints.
void count_complaint(void* context, const std::string& text) {
  DecoderMessages* counts = counts_of(context);
  const bool is_aside = text.find("SEI") != text.npos || text.find("APP") != text.npos;
  if (counts && !is_aside) ++counts->complaints;
}

// Called from libav*'s own threads too. What is below a warning isn't even formatted.
void take_message(void* context, int level, const char* format, va_list arguments) {
  if (level == AV_LOG_INFO && std::strncmp(format, "concealing", 10) == 0) {
    if (DecoderMessages* counts = counts_of(context)) ++counts->concealments;
  }
  if (level > AV_LOG_WARNING) return;
  char line[512];
  int print_prefix = 0;
  av_log_format_line2(context, level, format, arguments, line, sizeof line, &print_prefix);
  std::string text(line);
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  if (text.empty()) return;
  if (level <= AV_LOG_ERROR) {
    t_last_error = text;
    count_complaint(context, text);
  }
  log_debug("libav: " + text);
}

}  // namespace

AvOwner<AVFrame> make_frame() {
  AvOwner<AVFrame> frame(av_frame_alloc());
  if (!frame) throw std::bad_alloc();
  return frame;
}

AvOwner<AVPacket> make_packet() {
  AvOwner<AVPacket> packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  return packet;
}

void redirect_av_messages() {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_callback(take_message); });
}

void forget_av_message() {
  t_last_error.clear();
}

std::string av_reason(int code) {
  if (!t_last_error.empty()) return t_last_error;
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(code, text, sizeof text);
  return text;
}

}  // namespace vlm::data
