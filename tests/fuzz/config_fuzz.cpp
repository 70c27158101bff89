// Bytes → the configs of a checkpoint of each family, of its picture and video processors, and
// --set assignments.
//
// The first byte picks the reader: a digit in the corpus. A config that is accepted must hold what
// the graph divides by and allocates from, and SmolVLM's, written and read again, must be the same.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/image_processor.h"
#include "vlm/image/video_processor.h"
#include "vlm/models/internvl/internvl_chat_config.h"
#include "vlm/models/qwen_vl/qwen_pixels.h"
#include "vlm/models/qwen_vl/qwen_vl_config.h"
#include "vlm/models/smolvlm/smolvlm.h"
#include "vlm/models/text/text_model.h"

namespace {

using vlm::Json;

void demand(bool holds) {
  if (!holds) std::abort();
}

void demand_decoder(const vlm::DecoderConfig& config) {
  demand(config.num_hidden_layers >= 1 && config.vocab_size >= 1 && config.hidden_size >= 1);
  demand(config.kv_heads() >= 1 && config.num_attention_heads % config.kv_heads() == 0);
  demand(config.head_size() > 0 && config.rope_theta > 0);
}

void demand_encoder(const vlm::InternVitConfig& config) {
  demand(config.patch_size >= 1 && config.grid_side() >= 1 && config.num_attention_heads >= 1);
  demand(config.hidden_size % config.num_attention_heads == 0);
}

void read_model_config(const Json& json) {
  vlm::SmolVlmConfig config = vlm::SmolVlmConfig::parse(json, "fuzz");
  demand(config.image_seq_len() >= 1);
  demand(config.vision_config.hidden_size % config.vision_config.num_attention_heads == 0);
  demand_decoder(config.text_config);
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

void read_qwen_vl_config(const Json& json) {
  const auto config = vlm::QwenVlConfig::parse(json, "fuzz");
  const vlm::QwenVisionConfig& vision = config.vision_config;
  demand_decoder(config.text_config);
  demand(vision.depth >= 1 && vision.num_heads >= 1 && vision.width % vision.num_heads == 0);
  demand(vision.patch_numbers() >= 1 && vision.merged_patches() >= 1);
  demand(vision.out_width == config.text_config.hidden_size);
}

void read_internvl_config(const Json& json) {
  const auto config = vlm::InternVlConfig::parse(json, "fuzz");
  demand_decoder(config.text_config);
  demand_encoder(config.vision_config);
  demand(config.scale >= 1 && config.vision_config.grid_side() % config.scale == 0);
}

void read_internvl_chat_config(const Json& json) {
  const auto config = vlm::InternVlChatConfig::parse(json, "fuzz");
  demand_decoder(config.model.text_config);
  demand_encoder(config.model.vision_config);
  demand(config.tile_tokens() >= 1);
}

// What one file says to the processors of the families that read it from a folder.
void read_processors(const Json& json, std::string_view text) {
  static const std::filesystem::path folder = [] {
    std::string name = (std::filesystem::temp_directory_path() / "config_fuzz.XXXXXX").string();
    demand(::mkdtemp(name.data()) != nullptr);
    return name;
  }();
  std::ofstream(folder / "preprocessor_config.json", std::ios::binary) << text;
  const vlm::PixelSize sizes[] = {{480, 640}, {1, 150}, {3000, 2}};
  const auto attempt = [](const auto& read) {
    try {
      read();
    } catch (const vlm::Error&) {
    }
  };
  attempt([&] { vlm::VideoProcessorConfig::parse(json, "fuzz"); });
  attempt([&] {
    const vlm::QwenPictures pictures(folder);
    for (const auto& size : sizes) {
      attempt([&] {
        const vlm::PatchGrid grid = pictures.grid_of(size);
        demand(grid.height >= 1 && grid.width >= 1 && grid.patches() < (1LL << 32));
      });
    }
  });
  attempt([&] {
    const vlm::InternVlPictures pictures(folder);
    for (const auto& size : sizes) demand(pictures.grid_of(size, false).tiles() >= 1);
  });
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
    switch (data[0] % 8) {
      case 0:
        read_model_config(vlm::parse_json(text, "fuzz"));
        break;
      case 1:
        read_image_config(vlm::parse_json(text, "fuzz"));
        break;
      case 2:
        set_fields(text);
        break;
      case 3:
        read_qwen_vl_config(vlm::parse_json(text, "fuzz"));
        break;
      case 4:
        read_internvl_config(vlm::parse_json(text, "fuzz"));
        break;
      case 5:
        read_internvl_chat_config(vlm::parse_json(text, "fuzz"));
        break;
      case 6:
        demand_decoder(vlm::TextModelConfig::parse(vlm::parse_json(text, "fuzz"), "fuzz").decoder);
        break;
      default:
        read_processors(vlm::parse_json(text, "fuzz"), text);
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
