#include "vlm/image/resample.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace vlm {
namespace {

constexpr std::int64_t kChannels = 3;
constexpr int kPrecisionBits = 32 - 8 - 2;  // 8 bits of value, 2 of headroom for negative lobes
constexpr double kPi = 3.14159265358979323846;

struct FilterShape {
  double support;  // half width, in input pixels when not shrinking
  double (*weight)(double);
};

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= kPi;
  return std::sin(x) / x;
}

double box(double x) {
  return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

double bilinear(double x) {
  return std::max(1.0 - std::abs(x), 0.0);
}

double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= kPi;
  return std::sin(x) / x * (0.54F + 0.46F * std::cos(x));  // Pillow's constants are floats
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double lanczos(double x) {
  return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

FilterShape shape_of(Filter filter) {
  switch (filter) {
    case Filter::kBox:
      return {0.5, box};
    case Filter::kHamming:
      return {1.0, hamming};
    case Filter::kBicubic:
      return {2.0, bicubic};
    case Filter::kLanczos:
      return {3.0, lanczos};
    default:
      return {1.0, bilinear};
  }
}

// The inputs that make one output of an axis.
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;  // fixed point
};

class Axis {
 public:
  Axis(std::int64_t in_size, std::int64_t out_size, Filter filter)
      : in_size_(in_size), shape_(shape_of(filter)) {
    scale_ = static_cast<double>(in_size) / static_cast<double>(out_size);
    stretch_ = std::max(scale_, 1.0);
  }

  // Reuses the memory of `taps`.
  void taps_of(std::int64_t out, Taps& taps) {
    const double center = (static_cast<double>(out) + 0.5) * scale_;
    const double support = shape_.support * stretch_;
    taps.first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const std::int64_t end = std::min(static_cast<std::int64_t>(center + support + 0.5), in_size_);
    exact_.resize(static_cast<std::size_t>(end - taps.first));
    double sum = 0.0;
    for (std::size_t i = 0; i < exact_.size(); ++i) {
      const double at = static_cast<double>(taps.first + static_cast<std::int64_t>(i));
      exact_[i] = shape_.weight((at - center + 0.5) * (1.0 / stretch_));
      sum += exact_[i];
    }
    taps.weights.resize(exact_.size());
    for (std::size_t i = 0; i < exact_.size(); ++i) {
      const double weight = (sum != 0.0 ? exact_[i] / sum : exact_[i]) * (1 << kPrecisionBits);
      taps.weights[i] = static_cast<std::int32_t>(weight < 0.0 ? weight - 0.5 : weight + 0.5);
    }
  }

 private:
  std::int64_t in_size_;
  FilterShape shape_;
  double scale_;
  double stretch_;
  std::vector<double> exact_;
};

// out[i] = Σ_j weights[j] · first[j · stride + i], rounded and clamped, for i < size.
struct Blend {
  const std::uint8_t* first;
  std::int64_t stride;
  const Taps& taps;
  std::uint8_t* out;
  std::int64_t size;
};

// Sums held in registers at a time: six vectors of eight.
constexpr std::int64_t kLanes = 48;

template <std::int64_t kSize>
[[gnu::always_inline]] inline void blend_lanes(const Blend& blend, std::int64_t at) {
  std::int32_t sums[kSize];
  for (std::int64_t i = 0; i < kSize; ++i) sums[i] = 1 << (kPrecisionBits - 1);
  const std::uint8_t* row = blend.first + at;
  for (const std::int32_t weight : blend.taps.weights) {
    for (std::int64_t i = 0; i < kSize; ++i) sums[i] += weight * row[i];
    row += blend.stride;
  }
  for (std::int64_t i = 0; i < kSize; ++i) {
    blend.out[at + i] =
        static_cast<std::uint8_t>(std::clamp<std::int32_t>(sums[i] >> kPrecisionBits, 0, 255));
  }
}

[[gnu::always_inline]] inline void blend_any(const Blend& blend) {
  std::int64_t at = 0;
  for (; at + kLanes <= blend.size; at += kLanes) blend_lanes<kLanes>(blend, at);
  for (; at < blend.size; ++at) blend_lanes<1>(blend, at);
}

void blend_portable(const Blend& blend) {
  blend_any(blend);
}

#if defined(__x86_64__)
// The same loop compiled for 32-byte vectors: baseline x86-64 has no 32-bit vector multiply.
[[gnu::target("avx2")]] void blend_avx2(const Blend& blend) {
  blend_any(blend);
}
const auto blend_rows = __builtin_cpu_supports("avx2") ? blend_avx2 : blend_portable;
#else
const auto blend_rows = blend_portable;
#endif

Image make_image(std::int64_t height, std::int64_t width) {
  return {height, width, std::vector<std::uint8_t>(height * width * kChannels)};
}

Image resize_height(const Image& image, std::int64_t height, Filter filter) {
  Image out = make_image(height, image.width);
  const std::int64_t stride = image.width * kChannels;
  Axis axis(image.height, height, filter);
  Taps taps;
  for (std::int64_t y = 0; y < height; ++y) {
    axis.taps_of(y, taps);
    blend_rows({image.pixels.data() + taps.first * stride, stride, taps,
                out.pixels.data() + y * stride, stride});
  }
  return out;
}

// Rows that are resized together; they lie side by side, so that blend_rows serves this axis too.
constexpr std::int64_t kRowGroup = kLanes / kChannels;

// Rows [top, top + count) of a picture as columns [width, 3, count].
void gather_rows(const Image& image, std::int64_t top, std::int64_t count, std::uint8_t* columns) {
  const std::int64_t stride = image.width * kChannels;
  for (std::int64_t row = 0; row < count; ++row) {
    const std::uint8_t* in = image.pixels.data() + (top + row) * stride;
    for (std::int64_t x = 0; x < stride; ++x) columns[x * count + row] = in[x];
  }
}

void scatter_rows(const std::uint8_t* columns, std::int64_t top, std::int64_t count, Image& image) {
  const std::int64_t stride = image.width * kChannels;
  for (std::int64_t row = 0; row < count; ++row) {
    std::uint8_t* out = image.pixels.data() + (top + row) * stride;
    for (std::int64_t x = 0; x < stride; ++x) out[x] = columns[x * count + row];
  }
}

// The taps of every output, kept only where more than one group of rows asks for them: a picture
// one row high may be so wide that they need far more memory than it does.
class ColumnTaps {
 public:
  ColumnTaps(Axis axis, std::int64_t width, bool keep) : axis_(std::move(axis)) {
    if (!keep) return;
    kept_.resize(width);
    for (std::int64_t x = 0; x < width; ++x) axis_.taps_of(x, kept_[x]);
  }

  const Taps& at(std::int64_t x) {
    if (!kept_.empty()) return kept_[x];
    axis_.taps_of(x, current_);
    return current_;
  }

 private:
  Axis axis_;
  std::vector<Taps> kept_;
  Taps current_;
};

Image resize_width(const Image& image, std::int64_t width, Filter filter) {
  Image out = make_image(image.height, width);
  ColumnTaps taps(Axis(image.width, width, filter), width, image.height > kRowGroup);
  const std::int64_t group = std::min(kRowGroup, image.height);
  std::vector<std::uint8_t> in_columns(image.width * kChannels * group);
  std::vector<std::uint8_t> out_columns(width * kChannels * group);
  for (std::int64_t top = 0; top < image.height; top += group) {
    const std::int64_t count = std::min(group, image.height - top);
    const std::int64_t stride = kChannels * count;
    gather_rows(image, top, count, in_columns.data());
    for (std::int64_t x = 0; x < width; ++x) {
      const Taps& column = taps.at(x);
      blend_rows({in_columns.data() + column.first * stride, stride, column,
                  out_columns.data() + x * stride, stride});
    }
    scatter_rows(out_columns.data(), top, count, out);
  }
  return out;
}

// Which input each output of an axis copies. The position is a running sum, as in Pillow: a product
// rounds differently where a centre falls between two pixels.
std::vector<std::int64_t> nearest_inputs(std::int64_t in_size, std::int64_t out_size) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  std::vector<std::int64_t> inputs(out_size);
  double at = scale * 0.5;
  for (std::int64_t& input : inputs) {
    input = std::min(static_cast<std::int64_t>(at), in_size - 1);
    at += scale;
  }
  return inputs;
}

Image resize_nearest(const Image& image, std::int64_t height, std::int64_t width) {
  Image out = make_image(height, width);
  const std::vector<std::int64_t> columns = nearest_inputs(image.width, width);
  std::uint8_t* pixel = out.pixels.data();
  for (const std::int64_t y : nearest_inputs(image.height, height)) {
    const std::uint8_t* row = image.pixels.data() + y * image.width * kChannels;
    for (const std::int64_t x : columns) {
      std::copy_n(row + x * kChannels, kChannels, pixel);
      pixel += kChannels;
    }
  }
  return out;
}

// Each pass rounds, so their order shows. Pillow shrinks the height first where that leaves the
// pass over the width much less to do: tall pictures, mostly.
bool height_goes_first(const Image& image, std::int64_t height, std::int64_t width) {
  const std::int64_t lost = image.height - height;
  return lost > 0 && lost > (image.width - width) * 2;
}

}  // namespace

Image resize(const Image& image, std::int64_t height, std::int64_t width, Filter filter) {
  if (height == image.height && width == image.width) return image;
  if (filter == Filter::kNearest) return resize_nearest(image, height, width);
  if (height == image.height) return resize_width(image, width, filter);
  if (width == image.width) return resize_height(image, height, filter);
  if (height_goes_first(image, height, width)) {
    return resize_width(resize_height(image, height, filter), width, filter);
  }
  return resize_height(resize_width(image, width, filter), height, filter);
}

}  // namespace vlm
