// HEIC, HEIF and AVIF through libheif: the primary picture, upright, its colours in sRGB.
//
// Turning and mirroring are the container's own and done by libheif; EXIF's orientation then says
// what was done already and is left alone. More than 8 bits become 8, alpha is dropped. A grid of
// tiles counts as one picture. Reference: pillow-heif, which stands on the same library.
#include <libheif/heif.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "data/pictures/color_profile.h"
#include "data/pictures/decoder.h"
#include "vlm/core/concat.h"

namespace vlm::data {
namespace {

using Context = std::unique_ptr<heif_context, decltype(&heif_context_free)>;
using Handle = std::unique_ptr<heif_image_handle, decltype(&heif_image_handle_release)>;
using Decoded = std::unique_ptr<heif_image, decltype(&heif_image_release)>;
using Options = std::unique_ptr<heif_decoding_options, decltype(&heif_decoding_options_free)>;

[[noreturn]] void fail(const PictureSource& source, const heif_error& error) {
  if (error.subcode == heif_suberror_End_of_data) throw truncated(source, "HEIF");
  if (error.code == heif_error_Unsupported_feature ||
      error.code == heif_error_Unsupported_filetype) {
    throw unsupported(source, "HEIF", error.message);
  }
  throw corrupt(source, "HEIF", error.message);
}

void check(const PictureSource& source, const heif_error& error) {
  if (error.code != heif_error_Ok) fail(source, error);
}

Handle open_primary(const PictureSource& source, heif_context* context) {
  constexpr std::int64_t kAnySide = 1 << 16, kMostSide = std::numeric_limits<int>::max();
  heif_context_set_maximum_image_size_limit(
      context, static_cast<int>(std::clamp(source.max_pixels, kAnySide, kMostSide)));
  heif_context_set_max_decoding_threads(context, 0);  // callers have threads of their own
  check(source, heif_context_read_from_memory_without_copy(context, source.bytes.data(),
                                                           source.bytes.size(), nullptr));
  heif_image_handle* handle = nullptr;
  check(source, heif_context_get_primary_image_handle(context, &handle));
  return {handle, heif_image_handle_release};
}

Decoded decode(const PictureSource& source, const heif_image_handle* handle) {
  const Options options(heif_decoding_options_alloc(), heif_decoding_options_free);
  options->convert_hdr_to_8bit = 1;
  options->strict_decoding = 1;
  heif_image* image = nullptr;
  check(source, heif_decode_image(handle, &image, heif_colorspace_RGB, heif_chroma_interleaved_RGB,
                                  options.get()));
  return {image, heif_image_release};
}

void follow_profile(const heif_image_handle* handle, Image& image) {
  if (const std::size_t size = heif_image_handle_get_raw_color_profile_size(handle); size > 0) {
    std::string icc(size, '\0');
    if (heif_image_handle_get_raw_color_profile(handle, icc.data()).code == heif_error_Ok) {
      return to_srgb(image, icc);
    }
  }
  heif_color_profile_nclx* nclx = nullptr;
  if (heif_image_handle_get_nclx_color_profile(handle, &nclx).code != heif_error_Ok) return;
  const std::unique_ptr<heif_color_profile_nclx, decltype(&heif_nclx_color_profile_free)> held(
      nclx, heif_nclx_color_profile_free);
  to_srgb(image,
          {.red = {nclx->color_primary_red_x, nclx->color_primary_red_y},
           .green = {nclx->color_primary_green_x, nclx->color_primary_green_y},
           .blue = {nclx->color_primary_blue_x, nclx->color_primary_blue_y},
           .white = {nclx->color_primary_white_x, nclx->color_primary_white_y}},
          nclx->transfer_characteristics);
}

}  // namespace

DecodedPicture decode_heif(const PictureSource& source) {
  const Context context(heif_context_alloc(), heif_context_free);
  const Handle handle = open_primary(source, context.get());
  check_size(source, heif_image_handle_get_height(handle.get()),
             heif_image_handle_get_width(handle.get()));
  // What is decoded before it is cropped; codecs fill up blocks of 64.
  const auto cropped = [](int side) { return std::max(1, side - 63); };
  check_size(source, cropped(heif_image_handle_get_ispe_height(handle.get())),
             cropped(heif_image_handle_get_ispe_width(handle.get())));
  const Decoded decoded = decode(source, handle.get());
  int stride = 0;
  const std::uint8_t* pixels =
      heif_image_get_plane_readonly(decoded.get(), heif_channel_interleaved, &stride);
  const std::int64_t height = heif_image_get_height(decoded.get(), heif_channel_interleaved);
  const std::int64_t width = heif_image_get_width(decoded.get(), heif_channel_interleaved);
  check_size(source, height, width);
  if (!pixels) throw corrupt(source, "HEIF", "no pixels");
  Image image = make_canvas(height, width);
  for (std::int64_t y = 0; y < height; ++y) {
    std::copy_n(pixels + y * stride, width * 3, image.pixels.data() + y * width * 3);
  }
  follow_profile(handle.get(), image);
  return {.image = std::move(image)};
}

}  // namespace vlm::data
