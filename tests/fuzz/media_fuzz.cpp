// Bytes → a picture of at most 2²⁰ pixels, in any of the formats: an Error or all of its pixels.
//
// -max_len of about 4096 keeps the rate high; the formats' libraries are fuzzed by their own
// projects, so what is looked for here is how our decoders use them. EXR's header is read, its
// pixels are not: OpenCV's reader of them is off.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "data/media/media.h"
#include "vlm/core/error.h"
#include "vlm/core/plugin.h"

// Without vlm_opencv.so its formats would only give errors: that ends the fuzzer at once.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  ::setenv("VLM_PLUGIN_DIR", VLM_PLUGIN_FOLDER, /*overwrite=*/0);
  vlm::open_plugin("vlm_opencv", "vlm_opencv_library", "JPEG 2000 pictures");
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMaxPixels = 1 << 20;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const vlm::Image image = vlm::data::decode_image(bytes, "fuzz", {.max_pixels = kMaxPixels});
    if (image.height < 1 || image.width < 1) std::abort();
    if (image.height * image.width > kMaxPixels) std::abort();
    if (image.pixels.size() != static_cast<std::size_t>(image.height * image.width * 3)) {
      std::abort();
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
