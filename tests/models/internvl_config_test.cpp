// InternVL without weights: grids of tiles by the reference's numbers, configs and processors.
#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/internvl/internvl.h"
#include "vlm/models/internvl/internvl_processor.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

TEST_CASE("pictures are cut into the grids of the reference") {
  const InternVlTileConfig config{.side = 448};
  const auto grid = [&](std::int64_t height, std::int64_t width) {
    return choose_grid(config, {height, width});
  };
  CHECK(grid(480, 640) == TileGrid{.rows = 3, .cols = 4});
  CHECK(grid(448, 448) == TileGrid{.rows = 1, .cols = 1});
  CHECK(grid(600, 600) == TileGrid{.rows = 1, .cols = 1});
  CHECK(grid(1000, 1000) == TileGrid{.rows = 3, .cols = 3});
  CHECK(grid(1080, 1920) == TileGrid{.rows = 2, .cols = 4});
  CHECK(grid(2000, 500) == TileGrid{.rows = 4, .cols = 1});
  CHECK(grid(300, 900) == TileGrid{.rows = 1, .cols = 3});
  CHECK(grid(500, 1000) == TileGrid{.rows = 1, .cols = 2});
  CHECK(grid(900, 1800) == TileGrid{.rows = 2, .cols = 4});
  CHECK(choose_grid({.side = 448, .min_patches = 3}, {448, 448}) == TileGrid{.rows = 2, .cols = 2});
  CHECK(choose_grid({.side = 448, .max_patches = 1}, {480, 640}) == TileGrid());
}

// A copy of a fixture in which one file is changed.
fs::path changed_copy(const ScratchFolder& scratch, const std::string& file,
                      const std::string& changes) {
  for (const auto& entry : fs::directory_iterator(fixture("internvl_tiny"))) {
    fs::copy(entry.path(), scratch.path() / entry.path().filename(),
             fs::copy_options::overwrite_existing);
  }
  Json json = load_json(scratch.path() / file);
  json.merge_patch(parse_json(changes, "changes"));
  save_text(scratch.path() / file, json.dump());
  return scratch.path();
}

std::string processor_error(const std::string& file, const std::string& changes) {
  const ScratchFolder scratch;
  const fs::path folder = changed_copy(scratch, file, changes);
  try {
    InternVlProcessor processor(folder);
    return "";
  } catch (const Error& error) {
    std::string text = error.what();
    const std::size_t at = text.find(folder.string());
    if (at != std::string::npos) text.replace(at, folder.string().size(), "F");
    return text;
  }
}

TEST_CASE("tiles and tokens of a picture follow its grid, and one tile has no second") {
  const InternVlProcessor processor(fixture("internvl_tiny"));
  const MediumText wide = processor.picture_text(32, 48);
  CHECK(wide.rows == 2);
  CHECK(wide.cols == 3);
  CHECK(wide.units == 7);
  CHECK(wide.tokens == 28);
  const MediumText square = processor.picture_text(16, 16);
  CHECK(square.rows == 0);
  CHECK(square.units == 1);
  CHECK(square.text == "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>");
  CHECK(processor.picture_text(32, 48, /*is_whole=*/true).text == square.text);
  const Image picture{.height = 32, .width = 48, .pixels = std::vector<std::uint8_t>(4608, 9)};
  CHECK(processor.process_picture(picture, /*is_whole=*/true).pixels.units() == 1);
  CHECK(processor.process_picture(picture).pixels.units() == 7);
  const MediumText clip = processor.video_text({.times_s = {0, 1}});
  CHECK(clip.text == concat("Frame1: ", square.text, "\nFrame2: ", square.text));
  CHECK(clip.tokens == 8);
}

TEST_CASE("an augmented picture of InternVL keeps its tiles") {
  const InternVlProcessor processor(fixture("internvl_tiny"));
  const auto darker = [](Image image) {
    for (std::uint8_t& value : image.pixels) value /= 2;
    return image;
  };
  for (const std::int64_t side : {8, 64}) {  // enlarged, and made smaller
    const auto size = static_cast<std::size_t>(side * side * 6);
    const Image picture{
        .height = side, .width = 2 * side, .pixels = std::vector<std::uint8_t>(size, 200)};
    const Image dark{
        .height = side, .width = 2 * side, .pixels = std::vector<std::uint8_t>(size, 100)};
    CHECK(processor.process_picture(picture, false, darker)
              .pixels.values.equal(processor.process_picture(dark).pixels.values));
    CHECK(processor.process_frames({picture}, 1, darker)
              .values.equal(processor.process_frames({dark}, 1).values));
  }
}

TEST_CASE("frames of InternVL's clips are sampled as its file says") {
  const ScratchFolder scratch;
  const auto sampling = [&](const std::string& changes) {
    return InternVlProcessor(changed_copy(scratch, "video_preprocessor_config.json", changes))
        .frame_sampling();
  };
  CHECK(sampling("{}").rule == FrameSampling::Rule::kMiddles);
  CHECK(sampling("{}").max_frames == 3);
  CHECK(sampling("{}").min_frames == 3);
  CHECK(sampling(R"({"num_frames": null})").max_frames == 8);
  CHECK(sampling(R"({"num_frames": null, "fps": 2.5})").fps == 2.5);
  CHECK(sampling(R"({"num_frames": null, "fps": 2.5})").min_frames == 1);
  CHECK(sampling(R"({"initial_shift": false})").rule == FrameSampling::Rule::kParts);
}

TEST_CASE("InternVL of the published configs has the published parameters") {
  const auto parameters = [](const std::string& text) {
    // Memory for the weights is asked for, but never touched.
    const InternVl model(InternVlConfig::parse(parse_json(text, "c"), "c"));
    std::int64_t total = 0;
    for (const auto& [name, value] : model.weights()) total += value.numel();
    return total;
  };
  // Heads of their own, as published.
  const std::string head = R"({"tie_word_embeddings": false, "vision_config": {"attention_bias":
      true}, "image_token_id": 92546, "text_config": )";
  CHECK(parameters(head + R"({"model_type": "qwen2", "vocab_size": 151674, "hidden_size": 896,
      "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
      "num_key_value_heads": 2}})") == 938193024);
  CHECK(parameters(head + R"({"model_type": "llama", "vocab_size": 92553, "hidden_size": 2048,
      "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16,
      "num_key_value_heads": 8}})") == 2205754368);
  CHECK(parameters(head + R"({"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024,
      "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
      "num_key_value_heads": 8, "head_dim": 128}})") == 1060897792);
}

std::string internvl_error(const std::string& changes) {
  Json config = load_json(fixture("internvl_tiny/config.json"));
  config.merge_patch(parse_json(changes, "changes"));
  try {
    InternVlConfig::parse(config, "c");
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_CASE("configs of InternVL that can't work or aren't supported name the key") {
  CHECK(internvl_error("{}").empty());
  CHECK(internvl_error(R"({"vision_config": {"image_size": 16, "patch_size": 4}})").empty());
  CHECK(internvl_error(R"({"vision_config": {"use_qk_norm": true, "norm_type": "rms_norm"}})")
            .empty());
  CHECK(internvl_error(R"({"vision_config": {"use_mask_token": true}})") ==
        "c: vision_config: use_mask_token: unsupported value: got true, wanted false");
  CHECK(internvl_error(R"({"vision_config": {"use_mean_pooling": false}})") ==
        "c: vision_config: use_mean_pooling: unsupported value: got false, wanted true");
  CHECK(internvl_error(R"({"vision_config": {"use_absolute_position_embeddings": false}})") ==
        "c: vision_config: use_absolute_position_embeddings: unsupported value: got false, wanted "
        "true");
  CHECK(internvl_error(R"({"vision_config": {"norm_type": "batch_norm"}})") != "");
  CHECK(internvl_error(R"({"vision_config": {"hidden_act": "relu"}})") != "");
  CHECK(internvl_error(R"({"vision_config": {"image_size": [16, 32]}})") ==
        "c: vision_config: image_size: unsupported value: got [16,32], wanted a number, or two "
        "equal ones");
  CHECK(internvl_error(R"({"vision_config": {"num_attention_heads": 3}})") ==
        "c: vision_config: num_attention_heads: heads don't divide hidden_size: got 3, wanted a "
        "divisor of 16");
  CHECK(internvl_error(R"({"downsample_ratio": 0.3})") ==
        "c: downsample_ratio: value out of range: got 0.3, wanted 1 / n, where n divides the grid "
        "of 4 patches");
  CHECK(internvl_error(R"({"vision_feature_layer": -2})") ==
        "c: vision_feature_layer: unsupported value: got -2, wanted -1");
  CHECK(internvl_error(R"({"vision_feature_select_strategy": "full"})") != "");
  CHECK(internvl_error(R"({"projector_hidden_act": "silu"})") != "");
  CHECK(internvl_error(R"({"text_config": {"model_type": "phi3"}})") != "");
  CHECK(internvl_error(R"({"image_token_id": 301})") ==
        "c: image_token_id: outside the vocabulary: got 301, wanted 0 to 300");
}

TEST_CASE("processors of InternVL that can't work name the key") {
  const std::string pictures = "preprocessor_config.json", clips = "video_preprocessor_config.json";
  CHECK(processor_error(pictures, "{}").empty());
  CHECK(processor_error(pictures, R"({"do_resize": false})") ==
        "F/preprocessor_config.json: do_resize: unsupported value: got false, wanted true");
  CHECK(processor_error(pictures, R"({"size": {"width": 32}})") ==
        "F/preprocessor_config.json: size: unsupported size: got {\"height\":16,\"width\":32}, "
        "wanted equal height and width");
  CHECK(processor_error(pictures, R"({"size": {"height": 32, "width": 32}})") ==
        "F: the processor's tiles don't fit its tokens: got size 32, image_seq_length 4, wanted "
        "(size / 8)² = image_seq_length");
  CHECK(processor_error(pictures, R"({"max_patches": 0})") ==
        "F/preprocessor_config.json: max_patches: value out of range: got 0, wanted 1 to 1024");
  CHECK(processor_error(pictures, R"({"min_patches": 13})") ==
        "F/preprocessor_config.json: min_patches: value out of range: got 13, wanted 1 to "
        "max_patches = 12");
  CHECK(processor_error(pictures, R"({"image_processor_type": "SmolVLMImageProcessor"})") ==
        "F/preprocessor_config.json: image_processor_type: unsupported processor: got "
        "'SmolVLMImageProcessor', wanted GotOcr2ImageProcessor");
  CHECK(processor_error(clips, R"({"do_center_crop": true})") ==
        "F/video_preprocessor_config.json: do_center_crop: unsupported value: got true, wanted "
        "false");
  CHECK(processor_error(clips, R"({"num_frames": 0})") ==
        "F/video_preprocessor_config.json: num_frames: value out of range: got 0, wanted at least "
        "1");
  CHECK(processor_error(clips, R"({"num_frames": null, "fps": 0})") ==
        "F/video_preprocessor_config.json: fps: value out of range: got 0, wanted more than 0");
  CHECK(processor_error(clips, R"({"initial_shift": 2})") ==
        "F/video_preprocessor_config.json: initial_shift: unsupported value: got 2, wanted true or "
        "false");
  CHECK(processor_error("config.json", R"({"image_token_id": 3})") ==
        "F: the tokenizer's token for pictures isn't the model's: got <IMG_CONTEXT>, id 295, "
        "wanted image_token_id = 3 as in config.json");
}

}  // namespace
}  // namespace vlm
