// The interface to OpenCV's picture decoders, which are in a shared object (vlm_opencv.so). It is
// opened when the first such file is read, because OpenCV's codecs load a hundred libraries; a
// build may be without it.
//
//   bytes of a file ─► OpencvLibrary::decode ─► RawPicture: rows of samples as the file has them
//
// Errors are std::runtime_error, lack of memory std::bad_alloc, because program and shared object
// share only this header.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace vlm::data {

enum class SampleKind { kByte, kWord, kFloat };  // 8 and 16 bits, 32-bit floating point

// Valid during one call.
struct RawPicture {
  std::int64_t height = 0;
  std::int64_t width = 0;
  int channels = 0;  // 1: grey; 3: blue, green, red; 4: and alpha
  SampleKind kind = SampleKind::kByte;
  const std::uint8_t* samples = nullptr;  // [height, width, channels], rows `stride` bytes apart
  std::int64_t stride = 0;
};

// What the shared object exports, as the C function `vlm_opencv_library`.
struct OpencvLibrary {
  // Thread-safe. Passes the picture to the callback and returns OpenCV's warnings, "" for none.
  // `is_gray`: decode to one channel; needed for grey with alpha.
  std::string (*decode)(std::string_view bytes, bool is_gray,
                        const std::function<void(const RawPicture&)>& use);
};

}  // namespace vlm::data
