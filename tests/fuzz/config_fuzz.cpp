// Bytes → the configs of a checkpoint and of the image processor, and --set assignments.
//
// The first byte picks the reader. A config that is accepted must hold what the graph divides by
// and allocates from, and writing it and reading it again must give the same.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/image_processor.h"
#include "vlm/models/smolvlm/smolvlm.h"

namespace {

using vlm::Json;

void demand(bool holds) {
  if (!holds) std::abort();
}

void read_model_config(const Json& json) {
  vlm::SmolVlmConfig config = vlm::SmolVlmConfig::parse(json, "fuzz");
  demand(config.image_seq_len() >= 1);
  demand(config.vision_config.hidden_size % config.vision_config.num_attention_heads == 0);
  demand(config.text_config.num_attention_heads % config.text_config.kv_heads() == 0);
  demand(config.text_config.head_size() > 0 && config.text_config.rope_theta > 0);
  vlm::Fields vision = config.vision_config.fields();
  vlm::Fields text = config.text_config.fields();
  const vlm::Fields fields = {{"image_token_id", &config.image_token_id},
                              {"scale_factor", &config.scale_factor},
                              {"vision_config", &vision},
                              {"text_config", &text}};
  const std::string written = vlm::write_fields(fields).dump();
  vlm::SmolVlmConfig again = vlm::SmolVlmConfig::parse(vlm::parse_json(written, "again"), "again");
  demand(vlm::write_fields(again.text_config.fields()) == vlm::write_fields(text));
  demand(vlm::write_fields(again.vision_config.fields()) == vlm::write_fields(vision));
}

void read_image_config(const Json& json) {
  const auto config = vlm::ImageProcessorConfig::parse(json, "fuzz");
  for (const auto& [height, width] : {std::pair(480, 640), {1, 5000}, {3000, 2}}) {
    const vlm::TilePlan plan = vlm::plan_tiles(config, {height, width});
    demand(plan.tiled.height > 0 && plan.tiled.width > 0 && plan.resized.height > 0);
    demand((plan.rows == 0) == (plan.cols == 0));
  }
}

// Every kind of field, as training configs have them; one assignment a line.
void set_fields(std::string_view text) {
  bool flag = false;
  std::int64_t count = 0;
  double rate = 0;
  std::string name = "a";
  std::optional<double> limit;
  std::vector<double> numbers;
  vlm::Names modules;
  Json anything;
  vlm::Fields inner = {{"rate", &rate, "Rate"}, {"numbers", &numbers}};
  const vlm::Fields fields = {
      {"flag", &flag},   {"count", &count, "Count"}, {"name", &name, "", {"a", "b"}},
      {"limit", &limit}, {"modules", &modules},      {"any", &anything},
      {"inner", &inner}};
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    try {
      vlm::set_field(fields, text.substr(0, end), "--set");
    } catch (const vlm::Error&) {
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  vlm::describe_fields(fields);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 3) {
      case 0:
        read_model_config(vlm::parse_json(text, "fuzz"));
        break;
      case 1:
        read_image_config(vlm::parse_json(text, "fuzz"));
        break;
      default:
        set_fields(text);
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
