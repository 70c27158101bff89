// How much of a batch's pictures goes through a vision encoder at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>

namespace vlm {

// Memory that an encoder's activations may add at once during inference. A GPU needs many tiles to
// be busy; a CPU is with one, and is no quicker with more.
constexpr std::int64_t kEncoderBytes = 512 << 20;
constexpr std::int64_t kCpuEncoderBytes = 64 << 20;

// Patches whose activations fit `bytes`, one at least: each holds about eight vectors of the width
// (residual, norm, q, k, v, attended, their sum) and two of the MLP's, in float32.
std::int64_t fitting_patches(std::int64_t hidden_size, std::int64_t intermediate_size,
                             std::int64_t bytes);

// Tiles of an encoder of square ones; any config with grid_side, hidden_size, intermediate_size.
template <class Config>
std::int64_t fitting_tiles(const Config& config, std::int64_t bytes) {
  const std::int64_t patches = fitting_patches(config.hidden_size, config.intermediate_size, bytes);
  return std::clamp<std::int64_t>(patches / (config.grid_side() * config.grid_side()), 1, 1024);
}

// How many of `wanted` a device is given together.
template <class Config>
std::int64_t tiles_at_once(const Config& config, at::Device device, std::int64_t wanted) {
  return device.is_cpu() ? std::min(wanted, fitting_tiles(config, kCpuEncoderBytes)) : wanted;
}

// `encode(begin, count)` of `units`, at most `most` at a time, joined along the first dimension.
at::Tensor encode_in_chunks(std::int64_t units, std::int64_t most,
                            const std::function<at::Tensor(std::int64_t, std::int64_t)>& encode);

}  // namespace vlm
