// A model's layers in 4 and 8 bits, chosen by the errors that they make.
//
//   model, a dtype, perhaps rows to calibrate on and a size ─► quantize_model ─► QuantizedLayers
//   and a table of what each kind of layer lost
//
// With "int8" all linear layers get 8 bits. With "int4" those of the text model get 4, and the
// others 8 (vlm/models/weight_rules.h); with a size in MB, layers of 4 bits that lose most for
// their bytes get 8, as long as the checkpoint fits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"
#include "vlm/models/quantized_checkpoint.h"

namespace vlm::infer {

struct QuantizeOptions {
  std::string dtype;              // "int4" or "int8"
  std::string calibration;        // rows; empty: none
  std::int64_t samples = 64;      // of them
  std::optional<double> size_mb;  // of the checkpoint's weights
};

// Layers of one name in all blocks.
struct QuantizedKind {
  std::string name;  // "model.text_model.layers.*.mlp.up_proj"
  std::int64_t fours = 0, eights = 0;
  double bytes = 0;
  double error = 0;  // mean of Σ |(W − coded) x|² / Σ |W x|²
};

struct QuantizedModel {
  QuantizedLayers layers;
  std::vector<QuantizedKind> kinds;
  double bytes = 0;  // of all weights
};

// The model's weights are numbers; afterwards layers of 4 bits hold what their codes stand for.
// Throws Error for rows that can't be used, and for a size that can't be reached.
QuantizedModel quantize_model(VisionLanguageModel& model, const Processor& processor,
                              const QuantizeOptions& options);

// One line a kind, and the whole.
std::string describe_quantized(const QuantizedModel& quantized);

}  // namespace vlm::infer
