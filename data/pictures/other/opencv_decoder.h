// Decoding of the formats that OpenCV reads: bytes → samples, by vlm_opencv.so → 8-bit RGB.
//
//   header, read here ─► check_size ─► decode_with_opencv ─► DecodedPicture
//
// The file of each format reads the size from the header first, so that it is checked before
// anything is decoded. Grey becomes three equal channels; alpha is dropped, as by the exact
// decoders. Reference: OpenCV 4.6, Pillow 13.0.0 for what samples of more than 8 bits become.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/pictures/decoder.h"

namespace vlm::data {

// Facts from the file's header.
struct PictureHeader {
  const char* format = "";  // "PNM", for errors
  std::int64_t height = 0;
  std::int64_t width = 0;
  bool is_gray_with_alpha = false;
};

// How an integer sample becomes 8 bits; grey may have another rule than colours.
using ToByte = std::function<std::uint8_t(std::uint32_t value, bool is_gray)>;

// The value itself, for samples of 8 bits.
std::uint8_t same_byte(std::uint32_t value, bool is_gray);

// Floating point is linear light: clipped to [0, 1] and encoded by sRGB's curve. Throws Error as
// the decoders do, and when vlm_opencv.so can't be opened.
DecodedPicture decode_with_opencv(const PictureSource& source, const PictureHeader& header,
                                  const ToByte& to_byte = same_byte);

}  // namespace vlm::data
