// How each weight of a model is stored: in float32, in bfloat16 beside float32, or quantized.
//
//   LoadOptions + model ─► fill_rules ─► LoadRules, which load_weights follows
//   dtype + model       ─► choose_formats ─► the format of each linear layer that is quantized
#pragma once

#include <map>
#include <memory>
#include <string>

#include "vlm/io/checkpoint.h"
#include "vlm/models/registry.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/weights/weight_format.h"

namespace vlm {

struct LayerFormat {
  std::shared_ptr<Linear> layer;
  const WeightFormat* format;
};

// By the names of their weights, the linear layers that a dtype ("int8", "int4", or "NF4" for
// training on a frozen base) stores in fewer bits.
std::map<std::string, LayerFormat> choose_formats(const VisionLanguageModel& model,
                                                  const std::string& dtype);

// Has the rules, whose dtype and device are set, store the model's weights as the options say.
// `compute` is the dtype in which a mixed model multiplies.
void fill_rules(const VisionLanguageModel& model, const LoadOptions& options,
                at::ScalarType compute, LoadRules& rules);

}  // namespace vlm
