// A model with linear layers in 4 and 8 bits → a checkpoint folder that transformers, vLLM and this
// program read without quantizing again.
//
// The layout is that of compressed-tensors: layers in 4 bits "pack-quantized" (symmetric, a scale
// for each 32 inputs), layers in 8 bits "int-quantized" (a scale a row), both named in
// quantization_config of config.json. All else stays in the dtype that it has.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "vlm/models/interface/model.h"
#include "vlm/nn/cpu/int4/even_codes.h"

namespace vlm {

struct QuantizedLayer {
  std::int64_t bits = 8;
  EvenCodes codes;    // of 4 bits
  at::Tensor rows;    // of 8 bits: [out, in] int8
  at::Tensor scales;  // of 8 bits: [out, 1] float32, numbers of bfloat16

  std::int64_t nbytes() const;
  at::Tensor dense() const;  // [out, in] float32
};

// By the names of their weights.
using QuantizedLayers = std::map<std::string, QuantizedLayer>;

QuantizedLayer quantize_rows_of(const at::Tensor& weight);
// `importance` of inputs [in], undefined: alike.
QuantizedLayer quantize_groups_of(const at::Tensor& weight, const at::Tensor& importance);

// `source` is the folder that the model was loaded from; its side files are copied.
void save_quantized(const VisionLanguageModel& model, const QuantizedLayers& layers,
                    const std::filesystem::path& source, const std::filesystem::path& folder);

}  // namespace vlm
