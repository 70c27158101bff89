#include "train/config/effective_config.h"

#include <nlohmann/json.hpp>

#include "vlm/nn/lora/lora.h"

namespace vlm::train {

OrderedJson effective_config(TrainConfig config) {
  OrderedJson effective = write_fields(config.fields());
  if (!config.adapter) return effective;
  const OrderedJson lora = load_adapter_config(*config.adapter).to_json("");
  for (const auto& [key, value] : lora.items()) {
    const auto found = effective.find(key);
    if (found == effective.end()) continue;
    *found = value.is_null() && found->is_array() ? OrderedJson::array() : value;
  }
  // Where modules are looked up, and how values begin, are the adapter's past.
  effective.erase("target_parts");
  effective.erase("init_lora_weights");
  return effective;
}

}  // namespace vlm::train
