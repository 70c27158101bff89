// Fine-tunings of the tiny model by the program in this process, on the CPU and on the GPU.
#pragma once

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/gpu/program.h"
#include "tests/support/small_training.h"
#include "tests/support/tensors.h"

namespace vlm {

using Words = std::vector<std::string>;

// `vlm finetune` into folder/output.
inline ProgramResult try_training(const ScratchFolder& folder, const std::string& output,
                                  const std::string& device, const Words& settings,
                                  const std::string& dtype = "float32") {
  if (!std::filesystem::exists(folder.path() / "data.jsonl"))
    write_questions(folder.path() / "data.jsonl", 4);
  Words more = {"lora_dropout=0", "max_steps=4", "save_steps=0", "feature_cache=off"};
  more.insert(more.end(), settings.begin(), settings.end());
  Words words = training_arguments(folder.path(), output, more);
  *(std::find(words.begin(), words.end(), "--device") + 1) = device;
  words.insert(words.end(), {"--dtype", dtype});
  return run_here(words);
}

// The same, which must succeed; stderr.
inline std::string fine_tune(const ScratchFolder& folder, const std::string& output,
                             const std::string& device, const Words& settings,
                             const std::string& dtype = "float32") {
  const ProgramResult result = try_training(folder, output, device, settings, dtype);
  CAPTURE(settings, result.err);
  REQUIRE(result.code == 0);
  return result.err;
}

inline std::filesystem::path result_file(const std::filesystem::path& output) {
  const std::filesystem::path adapter = output / "adapter_model.safetensors";
  return std::filesystem::exists(adapter) ? adapter : output / "model.safetensors";
}

// The same steps, and the same weights at the end, but for rounding. A bias of all keys changes no
// attention: its gradient is rounding alone, of which Adam makes a step, so it isn't compared.
inline void check_same_run(const std::filesystem::path& found, const std::filesystem::path& wanted,
                           double tolerance = 5e-3) {
  const std::vector<Json> steps = repeatable_metrics(wanted), others = repeatable_metrics(found);
  REQUIRE(steps.size() > 0);
  REQUIRE(steps.size() == others.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (const auto& [key, value] : steps[i].items()) {
      INFO(key << " of row " << i);
      REQUIRE(others[i].contains(key));
      if (!value.is_number_float()) continue;
      CHECK(others[i][key].get<double>() == Approx(value.get<double>()).epsilon(2e-3).margin(1e-6));
    }
  }
  const SafetensorsFile a(result_file(found)), b(result_file(wanted));
  REQUIRE(a.entries().size() == b.entries().size());
  for (const auto& [key, entry] : b.entries()) {
    INFO(key);
    REQUIRE(a.entries().at(key).dtype == entry.dtype);
    if (key.find("k_proj") != std::string::npos && key.ends_with("bias")) continue;
    check_close(a.tensor(key).to(at::kFloat), b.tensor(key).to(at::kFloat), tolerance);
  }
}

}  // namespace vlm
