// Headers of FFmpeg's libraries (libav*) and owners of their objects, for the files of this folder.
//
// libav* prints nothing: its messages go to vlm/core/log at debug level. The last error message of
// each thread is kept, because return codes say little ("Invalid data found"). References: FFmpeg
// 5.1 (Debian 12) and 6.1 (Ubuntu 24.04); both compile.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace vlm::data {

// Counts what a decoder's threads report about its pictures. The decoder's context points here
// (`opaque`).
struct DecoderMessages {
  std::atomic<std::int64_t> complaints{0};
  std::atomic<std::int64_t> concealments{0};  // parts of pictures that were made up
};

struct AvDeleter {
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(AVCodecContext* codec) const { avcodec_free_context(&codec); }
  void operator()(AVFormatContext* format) const { avformat_close_input(&format); }
  void operator()(SwsContext* scaler) const { sws_freeContext(scaler); }
};

template <class T>
using AvOwner = std::unique_ptr<T, AvDeleter>;

// These throw std::bad_alloc when memory is lacking.
AvOwner<AVFrame> make_frame();
AvOwner<AVPacket> make_packet();

// Sends libav*'s messages to our log, once for the process.
void redirect_av_messages();

// Returns the last error message of libav* in this thread and clears it; the text of the error code
// if there was none.
void forget_av_message();
std::string av_reason(int code);

}  // namespace vlm::data
