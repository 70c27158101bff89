// Addresses of pictures and clips, data URIs above all → their bytes. Only ApiError may be thrown.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "infer/server/api/api_error.h"
#include "infer/server/api/media_url.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string url(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool is_clip = (data[0] & 1) != 0;
  vlm::infer::ApiLimits limits;
  if ((data[0] & 2) != 0) limits.media_folder = "/usr/share/doc";
  try {
    const auto medium = vlm::infer::read_media_url(
        url, is_clip ? vlm::data::MediaKind::kVideo : vlm::data::MediaKind::kPicture, "here",
        limits);
    // A file that may be read is below the folder.
    if (!medium.bytes && !medium.name.starts_with("/usr/share/doc/")) std::abort();
  } catch (const vlm::infer::ApiError& error) {
    vlm::infer::to_reply(error);
  }
  return 0;
}
