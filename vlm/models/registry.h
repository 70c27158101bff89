// A checkpoint folder → a model, by config.json's model_type. A new family adds one line to the
// table in registry.cpp.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"

namespace vlm {

struct LoadOptions {
  // "float32", "bfloat16", "stored" (what config.json names), or "auto": as "stored" on a GPU, with
  // bfloat16 in place of float16, and float32 on a CPU (see mixed_precision). Only with
  // mixed_precision: "int8", linear layers are stored and multiplied in 8 bits (vlm/nn/cpu/int8),
  // the other matrices in bfloat16; "int4", the text model's in 4 bits (vlm/nn/cpu/int4), the other
  // linear layers in 8.
  std::string dtype = "auto";
  at::Device device = at::kCPU;
  // On a CPU, for models that are only run or whose base is frozen: projections and embeddings may
  // be bfloat16 while everything else is float32. Those stored in bfloat16 stay so, and with dtype
  // "bfloat16" all are converted. They take half the memory and half the time to read, but get no
  // gradients. They are multiplied in float32, with the same result as converted weights; or in
  // bfloat16, where compute_dtype says so and the processor is quicker with it.
  bool mixed_precision = false;
  // For models that are only run, with mixed_precision and dtype "auto", "int8" or "int4": layers
  // that the files hold in few bits stay as they are, with a dtype that quantizes those in its
  // formats.
  bool keeps_codes = false;
  // For training adapters on a frozen base: linear layers except the output head are converted to
  // NF4 one by one while they are read, so that the unconverted model is never in memory as a
  // whole; the other matrices become bfloat16. Modules and parameters for whose names `is_trained`
  // returns true (null: none) are not converted; on a GPU they are float32 beside a bfloat16 base.
  bool quantize_nf4 = false;
  std::function<bool(const std::string& module)> is_trained = {};
};

// The model of config.json with uninitialised weights, on the CPU in float32.
ModelPtr make_model(const std::filesystem::path& folder);

// The model with the folder's weights, in evaluation mode.
ModelPtr load_model(const std::filesystem::path& folder, const LoadOptions& options);

// True for the dtypes that store linear layers in fewer bits, to run models on a CPU.
bool is_quantizing(const std::string& dtype);

// Converts those linear layers of a loaded model that aren't yet, as that dtype does. For models
// that adapters were merged into.
void store_weights(VisionLanguageModel& model, const std::string& dtype);

// The dtype in which a mixed model multiplies its matrices on a CPU: bfloat16 for dtype "bfloat16",
// for "int8" and "int4" (the matrices that stay so), and for "auto" if they are stored in bfloat16
// and the processor has such products; else float32.
at::ScalarType compute_dtype(const std::filesystem::path& folder, const LoadOptions& options);

// The processor that belongs to the model.
std::unique_ptr<Processor> load_processor(const std::filesystem::path& folder,
                                          const TemplateOptions& options = {});

// Ids that end an answer, where the family's code says so and not the folder's files; else none.
std::vector<std::int64_t> answer_ends(const std::filesystem::path& folder);

// Writes the weights, and copies every side file (config, tokenizer, …) of `source`. config.json's
// dtype is updated.
void save_model(const VisionLanguageModel& model, const std::filesystem::path& source,
                const std::filesystem::path& folder);

// Its parts, for other forms of a checkpoint: all side files but config.json, and what becomes of
// that for a model of numbers in `dtype`, whose head is tied or not.
void copy_side_files(const std::filesystem::path& source, const std::filesystem::path& folder);
OrderedJson make_saved_config(const std::filesystem::path& source, at::ScalarType dtype,
                              bool is_tied);

}  // namespace vlm
