#include "data/video/av.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <new>

#include "vlm/core/log.h"

namespace vlm::data {
namespace {

thread_local std::string t_last_error;

// Called from libav*'s own threads too. What is below a warning isn't even formatted.
void take_message(void* context, int level, const char* format, va_list arguments) {
  if (level > AV_LOG_WARNING) return;
  char line[512];
  int print_prefix = 0;
  av_log_format_line2(context, level, format, arguments, line, sizeof line, &print_prefix);
  std::string text(line);
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  if (text.empty()) return;
  if (level <= AV_LOG_ERROR) t_last_error = text;
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
