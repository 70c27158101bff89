// PBM, PGM, PPM (P1 to P6) and PAM (P7): of several pictures in a file the first.
//
// Samples are scaled by the file's largest value. Grey whose largest value is over 255 is scaled to
// 16 bits and clipped at 255: what Pillow makes of it. Alpha is dropped. Read here and not by
// OpenCV, whose version 4.6 scales no samples and swaps red and blue of PAM.
// Reference: Netpbm's pbm(5), pgm(5), ppm(5) and pam(5); PIL.PpmImagePlugin, Pillow 13.0.0.
#include <algorithm>
#include <cmath>

#include "data/pictures/other/header_reader.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

struct NetpbmHeader {
  std::string format;
  std::int64_t height = 0, width = 0;
  std::int64_t channels = 1;  // 1 grey, 2 grey and alpha, 3 colours, 4 colours and alpha
  std::int64_t largest = 1;   // of a sample
  bool is_plain = false;      // numbers as text
  bool is_bitmap = false;     // 1 is black; a bit each where it isn't plain
};

using Bytes = std::vector<std::uint8_t>;

NetpbmHeader read_pnm_header(const PictureSource& source, HeaderReader& reader) {
  const char kind = source.bytes[1];
  NetpbmHeader header{.format = "PNM"};
  header.is_plain = kind <= '3';
  header.is_bitmap = kind == '1' || kind == '4';
  header.channels = kind == '3' || kind == '6' ? 3 : 1;
  reader.go_to(2);
  header.width = reader.number(reader.word());
  header.height = reader.number(reader.word());
  if (!header.is_bitmap) header.largest = reader.number(reader.word());
  reader.read_bytes(1);  // one white space
  return header;
}

// "RGB_ALPHA" and the like; without a type the number of channels says it.
void check_tuple_type(const PictureSource& source, std::string_view type, std::int64_t channels) {
  constexpr std::string_view kAlpha = "_ALPHA";
  std::int64_t wanted = type.ends_with(kAlpha) ? 1 : 0;
  if (wanted == 1) type.remove_suffix(kAlpha.size());
  wanted += type == "RGB" ? 3 : 1;
  const bool is_known = type == "RGB" || type == "GRAYSCALE" || type == "BLACKANDWHITE";
  if (channels < 1 || channels > 4 || (!type.empty() && (!is_known || wanted != channels))) {
    throw unsupported(source, "PAM", concat(channels, " channels of type '", type, "'"));
  }
}

NetpbmHeader read_pam_header(const PictureSource& source, HeaderReader& reader) {
  NetpbmHeader header{.format = "PAM"};
  std::string_view type;
  reader.until('\n');
  for (std::string_view line; line != "ENDHDR"; line = trimmed(reader.until('\n'))) {
    const std::string_view name = line.substr(0, line.find_first_of(" \t"));
    const std::string_view value = trimmed(line.substr(name.size()));
    if (name == "WIDTH") header.width = reader.number(value);
    if (name == "HEIGHT") header.height = reader.number(value);
    if (name == "DEPTH") header.channels = reader.number(value);
    if (name == "MAXVAL") header.largest = reader.number(value);
    if (name == "TUPLTYPE") type = value;
  }
  check_tuple_type(source, type, header.channels);
  return header;
}

// By value; those over the largest are as the largest.
Bytes make_table(const NetpbmHeader& header) {
  const bool is_wide = header.largest > 255;
  const double scale = is_wide && header.channels < 3 ? 65535 : 255;
  Bytes table(is_wide ? 65536 : 256);
  for (std::size_t value = 0; value < table.size(); ++value) {
    const double scaled =
        std::nearbyint(static_cast<double>(value) / static_cast<double>(header.largest) * scale);
    table[value] = static_cast<std::uint8_t>(std::min(scaled, 255.0));
  }
  if (header.is_bitmap) std::swap(table[0], table[1]);
  return table;
}

// The samples of plain files, which are counted before there is room for them: a digit each in a
// bitmap, else numbers between white space.
class PlainSamples {
 public:
  PlainSamples(const PictureSource& source, const NetpbmHeader& header, HeaderReader& reader)
      : source_(source), header_(header), reader_(reader) {
    if (source.bytes.size() - reader.at() <
        static_cast<std::size_t>(header.height * header.width * header.channels)) {
      throw truncated(source, header.format);
    }
  }

  std::size_t next() {
    const std::int64_t value = header_.is_bitmap ? reader_.digit() : reader_.number(reader_.word());
    if (value > header_.largest) {
      throw corrupt(source_, header_.format, concat(value, " over the largest value"));
    }
    return static_cast<std::size_t>(value);
  }

 private:
  const PictureSource& source_;
  const NetpbmHeader& header_;
  HeaderReader& reader_;
};

class BinarySamples {
 public:
  BinarySamples(const NetpbmHeader& header, HeaderReader& reader)
      : size_(header.largest > 255 ? 2 : 1),
        bytes_(reader.read_bytes(
            static_cast<std::size_t>(header.height * header.width * header.channels * size_))) {}

  std::size_t next() {
    std::size_t value = static_cast<std::uint8_t>(bytes_[at_++]);
    if (size_ == 2) value = value << 8 | static_cast<std::uint8_t>(bytes_[at_++]);
    return value;
  }

 private:
  std::int64_t size_;
  std::string_view bytes_;
  std::size_t at_ = 0;
};

// Rows begin at whole bytes.
class BitSamples {
 public:
  BitSamples(const NetpbmHeader& header, HeaderReader& reader)
      : width_(header.width),
        bytes_(
            reader.read_bytes(static_cast<std::size_t>(header.height * ((header.width + 7) / 8)))) {
  }

  std::size_t next() {
    const std::size_t bit = 7 - static_cast<std::size_t>(column_ % 8);
    const std::size_t value = static_cast<std::uint8_t>(bytes_[at_]) >> bit & 1;
    ++column_;
    if (column_ % 8 == 0 || column_ == width_) ++at_;
    if (column_ == width_) column_ = 0;
    return value;
  }

 private:
  std::int64_t width_, column_ = 0;
  std::string_view bytes_;
  std::size_t at_ = 0;
};

template <typename Samples>
Image read_samples(const NetpbmHeader& header, Samples samples) {
  const Bytes table = make_table(header);
  Image image = make_canvas(header.height, header.width);
  std::uint8_t* out = image.pixels.data();
  for (std::int64_t i = 0; i < header.height * header.width; ++i, out += 3) {
    out[0] = table[samples.next()];
    for (int c = 1; c < 3; ++c) out[c] = header.channels < 3 ? out[0] : table[samples.next()];
    if (header.channels % 2 == 0) samples.next();  // alpha
  }
  return image;
}

}  // namespace

DecodedPicture decode_netpbm(const PictureSource& source) {
  HeaderReader reader(source, "PNM");
  const NetpbmHeader header =
      source.bytes[1] == '7' ? read_pam_header(source, reader) : read_pnm_header(source, reader);
  check_size(source, header.height, header.width);
  if (header.largest < 1 || header.largest > 65535) {
    throw corrupt(source, header.format, concat(header.largest, " as the largest value"));
  }
  if (header.is_plain) return {read_samples(header, PlainSamples(source, header, reader))};
  if (header.is_bitmap) return {read_samples(header, BitSamples(header, reader))};
  return {read_samples(header, BinarySamples(header, reader))};
}

}  // namespace vlm::data
