// JPEG through libjpeg-turbo. Suspension tells a truncated file from a damaged one: the library
// asks for more bytes, there are none, and it returns; its own reader of memory would invent an
// end. What libjpeg only warns of (damaged data in the middle) passes silently, as it does in
// Pillow.
#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it and does not include it
#include <cstring>
#include <vector>

#include <jpeglib.h>

#include "data/pictures/decoder.h"
#include "data/pictures/orientation.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

// A progressive file may hold thousands of passes over the picture; real ones need about ten.
constexpr int kMaxScans = 500;

// libjpeg leaves an error by longjmp, so nothing between setjmp and the library may own memory:
// the steps below use only this.
struct Session {
  jpeg_decompress_struct info = {};
  jpeg_error_mgr errors = {};
  jpeg_source_mgr reader = {};
  jpeg_progress_mgr progress = {};
  std::jmp_buf failed = {};
  char message[JMSG_LENGTH_MAX] = {};
  std::uint8_t* out = nullptr;   // [height, width, 3]
  std::uint8_t* cmyk = nullptr;  // [width, 4], where the file has four components
  bool complete = false;         // the step got all the bytes it needed
};

Session& session_of(j_common_ptr info) {
  return *static_cast<Session*>(info->client_data);
}

[[noreturn]] void on_error(j_common_ptr info) {
  Session& session = session_of(info);
  info->err->format_message(info, session.message);
  std::longjmp(session.failed, 1);
}

void on_message(j_common_ptr) {}

boolean on_empty(j_decompress_ptr) {
  return FALSE;
}

void on_skip(j_decompress_ptr info, long count) {
  jpeg_source_mgr& reader = *info->src;
  const auto skipped =
      std::min(static_cast<std::size_t>(std::max(count, 0L)), reader.bytes_in_buffer);
  reader.next_input_byte += skipped;
  reader.bytes_in_buffer -= skipped;
}

void on_nothing(j_decompress_ptr) {}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  Session& session = session_of(info);
  std::snprintf(session.message, sizeof session.message, "more than %d scans", kMaxScans);
  std::longjmp(session.failed, 1);
}

void read_header(Session& session) {
  jpeg_create_decompress(&session.info);
  session.info.src = &session.reader;
  session.info.progress = &session.progress;
  jpeg_save_markers(&session.info, JPEG_APP0 + 1, 0xFFFF);
  int result = JPEG_HEADER_TABLES_ONLY;
  while (result == JPEG_HEADER_TABLES_ONLY) result = jpeg_read_header(&session.info, FALSE);
  session.complete = result == JPEG_HEADER_OK;
}

void read_pixels(Session& session) {
  jpeg_decompress_struct& info = session.info;
  info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
  session.complete = false;
  if (!jpeg_start_decompress(&info)) return;
  while (info.output_scanline < info.output_height) {
    std::uint8_t* row = session.out + std::size_t{info.output_scanline} * info.output_width * 3;
    std::uint8_t* target = session.cmyk ? session.cmyk : row;
    if (jpeg_read_scanlines(&info, &target, 1) != 1) return;
    if (!session.cmyk) continue;
    // Adobe's programs store inverted inks; Pillow takes every file for theirs.
    for (JDIMENSION i = 0; i < info.output_width * 4; ++i) session.cmyk[i] ^= 0xFF;
    write_cmyk(session.cmyk, info.output_width, row);
  }
  session.complete = true;
}

class JpegReader {
 public:
  explicit JpegReader(const PictureSource& source) : source_(source) {
    session_.info.err = jpeg_std_error(&session_.errors);
    session_.info.client_data = &session_;
    session_.errors.error_exit = on_error;
    session_.errors.output_message = on_message;
    session_.progress.progress_monitor = on_progress;
    jpeg_source_mgr& reader = session_.reader;
    reader.next_input_byte = reinterpret_cast<const JOCTET*>(source.bytes.data());
    reader.bytes_in_buffer = source.bytes.size();
    reader.init_source = on_nothing;
    reader.fill_input_buffer = on_empty;
    reader.skip_input_data = on_skip;
    reader.resync_to_restart = jpeg_resync_to_restart;
    reader.term_source = on_nothing;
  }
  ~JpegReader() { jpeg_destroy_decompress(&session_.info); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  DecodedPicture read() {
    run(read_header);
    const int components = session_.info.num_components;
    if (components != 1 && components != 3 && components != 4) {
      throw unsupported(source_, "JPEG", concat(components, " components"));
    }
    check_size(source_, session_.info.image_height, session_.info.image_width);
    const int orientation = find_orientation(marker("Exif\0\0", 6), marker(kXmp, sizeof kXmp));
    Image image = make_canvas(session_.info.image_height, session_.info.image_width);
    std::vector<std::uint8_t> cmyk(components == 4 ? image.width * 4 : 0);
    session_.out = image.pixels.data();
    session_.cmyk = components == 4 ? cmyk.data() : nullptr;
    run(read_pixels);
    return {std::move(image), orientation};
  }

 private:
  static constexpr char kXmp[] = "http://ns.adobe.com/xap/1.0/";  // its zero belongs to it

  void run(void (*step)(Session&)) {
    if (setjmp(session_.failed) != 0) throw corrupt(source_, "JPEG", session_.message);
    step(session_);
    if (!session_.complete) throw truncated(source_, "JPEG");
  }

  // What follows `name` in the APP1 markers of that name, joined.
  std::string marker(const char* name, std::size_t size) const {
    std::string joined;
    for (auto* saved = session_.info.marker_list; saved; saved = saved->next) {
      if (saved->data_length < size || std::memcmp(saved->data, name, size) != 0) continue;
      joined.append(reinterpret_cast<const char*>(saved->data) + size, saved->data_length - size);
    }
    return joined;
  }

  const PictureSource& source_;
  Session session_;
};

}  // namespace

DecodedPicture decode_jpeg(const PictureSource& source) {
  return JpegReader(source).read();
}

}  // namespace vlm::data
