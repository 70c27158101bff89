#include "vlm/models/weight_files.h"

#include <nlohmann/json.hpp>

#include "vlm/core/json.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/gguf/gguf_weights.h"
#include "vlm/models/packed/packed_checkpoint.h"

namespace vlm {

std::unique_ptr<TensorSource> open_weights(const std::filesystem::path& folder) {
  if (is_gguf_folder(folder)) return std::make_unique<GgufWeights>(folder);
  const std::filesystem::path path = folder / "config.json";
  const Json config = std::filesystem::exists(path) ? load_json(path) : Json();
  if (is_packed(config)) return std::make_unique<PackedCheckpoint>(folder, config);
  return std::make_unique<Checkpoint>(folder);
}

}  // namespace vlm
