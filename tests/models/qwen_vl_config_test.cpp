// Qwen-VL without weights: positions, sizes and windows by the reference's numbers, and configs.
#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/qwen_vl/qwen_vl.h"
#include "vlm/models/qwen_vl/qwen_vl_processor.h"

namespace vlm {
namespace {

using QwenIds = std::vector<std::int64_t>;

TEST_CASE("positions follow the numbers of the reference") {
  PromptLayout layout;
  // Two tokens of text, a picture of 1 × 2 × 3 tokens, two of text.
  std::vector<bool> medium(10, false);
  std::fill_n(medium.begin() + 2, 6, true);
  place_grids(medium, {{.grid = {1, 2, 3}}}, layout);
  const auto row = [](const QwenIds& ids) { return at::tensor(ids, at::kLong); };
  CHECK(layout.positions.equal(
      at::stack({row({0, 1, 2, 2, 2, 2, 2, 2, 5, 6}), row({0, 1, 2, 2, 2, 3, 3, 3, 5, 6}),
                 row({0, 1, 2, 3, 4, 2, 3, 4, 5, 6})})));
  CHECK(layout.next_position == 7);
  // A clip of three frames of 2 × 2: time doesn't count behind it.
  std::vector<bool> clip(14, true);
  clip.front() = clip.back() = false;
  place_grids(clip, {{.grid = {3, 2, 2}}}, layout);
  CHECK(layout.positions.select(1, 12).equal(row({3, 2, 2})));
  CHECK(layout.positions.select(1, 13).equal(row({3, 3, 3})));
  CHECK(layout.next_position == 4);
}

TEST_CASE("pictures are resized to the sizes of the reference") {
  const auto size = [](std::int64_t height, std::int64_t width, std::int64_t most) {
    const QwenPixelConfig config{.min_pixels = 3136, .max_pixels = most};
    const PixelSize fitted = fit_pixels(config, {height, width});
    return std::pair(fitted.height, fitted.width);
  };
  using Size = std::pair<std::int64_t, std::int64_t>;
  CHECK(size(480, 640, 12845056) == Size{476, 644});
  CHECK(size(768, 1024, 12845056) == Size{756, 1036});
  CHECK(size(1080, 1920, 12845056) == Size{1092, 1932});
  CHECK(size(30, 500, 12845056) == Size{28, 504});
  CHECK(size(14, 14, 12845056) == Size{56, 56});
  CHECK(size(42, 70, 12845056) == Size{56, 56});
  CHECK(size(3000, 4000, 12845056) == Size{2996, 4004});
  CHECK(size(1080, 1920, 1003520) == Size{728, 1316});
  CHECK(size(3000, 4000, 1003520) == Size{840, 1148});
  CHECK_THROWS_WITH(size(10, 2010, 1003520),
                    "picture is too long for its width: got 10 × 2010 pixels, wanted a ratio of at "
                    "most 200");
}

TEST_CASE("pixels that aren't resized are cut only into whole tokens") {
  const ScratchFolder scratch;
  const char* const config =
      R"({"do_resize": false, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2})";
  scratch.write("preprocessor_config.json", config);
  scratch.write("video_preprocessor_config.json", config);
  const QwenPictures pictures(scratch.path());
  const QwenFrames frames(scratch.path(), /*counts_frames=*/false);
  const auto blank = [](std::int64_t height, std::int64_t width) {
    return Image{height, width,
                 std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3))};
  };
  CHECK((pictures.process(blank(56, 28)).grids == std::vector<PatchGrid>{{1, 4, 2}}));
  CHECK((frames.process({blank(28, 56)}, 1).grids == std::vector<PatchGrid>{{1, 2, 4}}));
  const auto refusal = [](int height, int width) {
    return Catch::Matchers::StartsWith(concat("picture can't be cut into whole tokens: got ",
                                              height, " × ", width,
                                              " pixels, wanted multiples of 28 pixels a side"));
  };
  CHECK_THROWS_WITH(pictures.process(blank(42, 28)), refusal(42, 28));
  CHECK_THROWS_WITH(pictures.process(blank(28, 29)), refusal(28, 29));
  CHECK_THROWS_WITH(pictures.grid_of({13, 28}), refusal(13, 28));
  CHECK_THROWS_WITH(frames.process({blank(56, 42)}, 1), refusal(56, 42));
  CHECK_THROWS_WITH(frames.grid_of({28, 30}, 2, 2), refusal(28, 30));
}

TEST_CASE("a change is made to the smaller one of a picture and what it is resized to") {
  const ScratchFolder scratch;
  const char* const config = R"({"min_pixels": 3136, "max_pixels": 3136})";
  scratch.write("preprocessor_config.json", config);
  scratch.write("video_preprocessor_config.json", config);
  using Size = std::pair<std::int64_t, std::int64_t>;
  std::vector<Size> seen;
  const PictureChange change = [&](Image image) {
    seen.emplace_back(image.height, image.width);
    return image;
  };
  const Image large{112, 112, std::vector<std::uint8_t>(112 * 112 * 3)};
  const Image small{28, 28, std::vector<std::uint8_t>(28 * 28 * 3)};
  const QwenPictures pictures(scratch.path());
  pictures.process(large, change);
  pictures.process(small, change);
  const QwenFrames frames(scratch.path(), /*counts_frames=*/false);
  frames.process({large, large}, 2, change);
  frames.process({small}, 1, change);
  CHECK(seen == std::vector<Size>{{56, 56}, {28, 28}, {56, 56}, {56, 56}, {28, 28}});
}

TEST_CASE("windows cover each frame once, the smaller ones at its borders") {
  const QwenVisionConfig config{
      .generation = QwenGeneration::k25, .patch_size = 4, .window_size = 16};
  const QwenWindows windows = find_windows(config, {{2, 6, 10}});  // 3 × 5 tokens, windows of 2 × 2
  CHECK(windows.patches == QwenIds{16, 16, 8, 8, 8, 4, 16, 16, 8, 8, 8, 4});
  CHECK(QwenIds(windows.order.begin(), windows.order.begin() + 8) ==
        QwenIds{0, 1, 5, 6, 2, 3, 7, 8});
  QwenIds sorted = windows.order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 30; ++i) CHECK(sorted[std::size_t(i)] == i);
}

// "0-31", "0,2" or nothing, as the fixture has the numbers of a key's "#".
std::vector<std::string> keys_of(const std::string& pattern, const std::string& numbers) {
  if (numbers.empty()) return {pattern};
  const std::size_t place = pattern.find('#'), dash = numbers.find('-');
  std::vector<std::string> keys;
  const auto add = [&](const std::string& number) {
    keys.push_back(pattern.substr(0, place) + number + pattern.substr(place + 1));
  };
  if (dash != std::string::npos) {
    for (int i = std::stoi(numbers); i <= std::stoi(numbers.substr(dash + 1)); ++i) add(concat(i));
    return keys;
  }
  for (std::size_t begin = 0; begin != std::string::npos;) {
    const std::size_t comma = numbers.find(',', begin);
    add(numbers.substr(begin, comma - begin));
    begin = comma == std::string::npos ? comma : comma + 1;
  }
  return keys;
}

TEST_CASE("Qwen-VL of the published configs has the published parameters and keys") {
  const Json published = load_json(fixture("qwen_vl_published.json"));
  for (const Json& one : published) {
    INFO(one["name"].get<std::string>());
    // Memory for the weights is asked for, but never touched.
    const QwenVl model(QwenVlConfig::parse(one["config"], "c"));
    std::int64_t total = 0;
    std::set<std::string> found, wanted;
    for (const auto& [name, value] : model.weights()) {
      total += value.numel();
      found.insert(model.published_key(name));
    }
    CHECK(total == one["parameters"].get<std::int64_t>());
    if (!one.contains("keys")) continue;
    for (const auto& [pattern, numbers] : one["keys"].items()) {
      for (const std::string& key : keys_of(pattern, numbers.get<std::string>())) {
        wanted.insert(key);
        CHECK(model.published_key(model.canonical_key(key)) == key);
      }
    }
    if (one["name"] == "Qwen3-VL-Embedding-8B") wanted.insert("lm_head.weight");  // it has none
    CHECK(found == wanted);
  }
}

std::string qwen_error(const std::string& changes) {
  Json config = load_json(fixture("qwen2_5_vl_tiny/config.json"));
  config.merge_patch(parse_json(changes, "changes"));
  try {
    QwenVlConfig::parse(config, "c");
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_CASE("configs of Qwen-VL that can't work name the key") {
  CHECK(qwen_error("{}").empty());
  CHECK(
      qwen_error(R"({"vision_config": {"out_hidden_size": 40}})") ==
      "c: vision_config: the encoder's tokens don't fit the decoder: got 40, wanted hidden_size = "
      "24");
  CHECK(qwen_error(R"({"vision_config": {"num_heads": 3}})") ==
        "c: vision_config: num_heads: heads don't divide the width into multiples of 4: got 3, "
        "wanted a divisor of 16 / 4");
  CHECK(qwen_error(R"({"vision_config": {"fullatt_block_indexes": [1, 3]}})") ==
        "c: vision_config: fullatt_block_indexes: no such layer: got 3, wanted 0 to 2");
  CHECK(qwen_error(R"({"vision_config": {"window_size": 4}})") ==
        "c: vision_config: window_size: a window smaller than a token: got 4, wanted at least 8");
  CHECK(qwen_error(R"({"image_token_id": 400})") ==
        "c: image_token_id: outside the vocabulary: got 400, wanted 0 to 301");
  CHECK(qwen_error(R"({"vision_config": {"hidden_act": "gelu"}})") != "");
  CHECK(qwen_error(R"({"text_config": {"rope_parameters": {"rope_type": "default",
                     "rope_theta": 500.0, "mrope_section": null}}})") ==
        "c: text_config: rope_scaling: mrope_section: a decoder without sections for time, row and "
        "column: got 0, wanted three numbers");
  CHECK_THROWS_WITH(find_media({5, 6}, {5}, {2}),
                    "image tokens in the prompt don't fit the pictures: got 1 image tokens, wanted "
                    "2");
}

}  // namespace
}  // namespace vlm
