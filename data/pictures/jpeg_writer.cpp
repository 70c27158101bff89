#include "data/pictures/jpeg_writer.h"

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it and does not include it
#include <cstdlib>

#include <jpeglib.h>

#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// libjpeg leaves an error by longjmp, so nothing between setjmp and the library may own memory.
struct Session {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors = {};
  std::jmp_buf failed = {};
  char message[JMSG_LENGTH_MAX] = {};
  unsigned char* bytes = nullptr;  // libjpeg's, by malloc
  unsigned long size = 0;
};

[[noreturn]] void on_error(j_common_ptr info) {
  Session& session = *static_cast<Session*>(info->client_data);
  info->err->format_message(info, session.message);
  std::longjmp(session.failed, 1);
}

bool compress(Session& session, const Image& image, int quality) {
  if (setjmp(session.failed) != 0) return false;
  jpeg_create_compress(&session.info);
  jpeg_mem_dest(&session.info, &session.bytes, &session.size);
  session.info.image_width = static_cast<JDIMENSION>(image.width);
  session.info.image_height = static_cast<JDIMENSION>(image.height);
  session.info.input_components = 3;
  session.info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&session.info);
  jpeg_set_quality(&session.info, quality, TRUE);
  jpeg_start_compress(&session.info, TRUE);
  while (session.info.next_scanline < session.info.image_height) {
    auto* row = const_cast<JSAMPLE*>(image.pixels.data()) +
                static_cast<std::size_t>(session.info.next_scanline) * image.width * 3;
    jpeg_write_scanlines(&session.info, &row, 1);
  }
  jpeg_finish_compress(&session.info);
  return true;
}

}  // namespace

std::string encode_jpeg(const Image& image, int quality) {
  Session session;
  session.info.err = jpeg_std_error(&session.errors);
  session.errors.error_exit = on_error;
  session.info.client_data = &session;
  const bool is_done = compress(session, image, quality);
  jpeg_destroy_compress(&session.info);
  std::string bytes;
  if (is_done) bytes.assign(reinterpret_cast<const char*>(session.bytes), session.size);
  std::free(session.bytes);
  if (!is_done) throw Error({.what = "can't write a JPEG", .got = session.message});
  return bytes;
}

}  // namespace vlm::data
