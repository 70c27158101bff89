// How each weight of a model is stored: in float32, in bfloat16 beside float32, or quantized.
//
//   LoadOptions + model ─► fill_rules ─► LoadRules, which load_weights follows
//   dtype + model       ─► choose_formats ─► the format of each linear layer that is quantized
#pragma once

#include <map>
#include <memory>
#include <string>

#include "vlm/io/checkpoint.h"
#include "vlm/models/parts/coded_tensors.h"
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

// Has the rules take layers as the files hold them, where the options allow it.
void keep_codes(const VisionLanguageModel& model, const LoadOptions& options,
                const CodedTensors& files, LoadRules& rules);

// Stores the head of a loaded model in 8 bits if it takes the weight of embeddings that the files
// hold in few bits.
void store_tied_head(VisionLanguageModel& model, const CodedTensors& files);

}  // namespace vlm
