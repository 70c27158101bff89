#include "vlm/image/image_processor.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/picture_golden.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// A checkpoint folder with the given files, gone at the end of the test.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / "vlm_image_processor_test") {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  Folder& write(const std::string& name, const std::string& text) {
    std::ofstream(path_ / name) << text;
    return *this;
  }
  const fs::path& path() const { return path_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

constexpr auto kSingle = "preprocessor_config.json";
constexpr auto kCombined = "processor_config.json";

ImageProcessorConfig load(const std::string& text) {
  Folder folder;
  return ImageProcessorConfig::load(folder.write(kSingle, text).path());
}

// The same checksum as the script's: depends on every bit of every value, and its place.
std::uint64_t weighted_sum(const at::Tensor& values) {
  const auto* bits = reinterpret_cast<const std::uint32_t*>(values.data_ptr<float>());
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(values.numel()); ++i) {
    sum += bits[i] * (2 * i + 1);
  }
  return sum;
}

TEST_CASE("pixel values equal transformers', bit for bit") {
  const PictureGolden golden("processor");
  REQUIRE(golden.cases().size() == 39);
  for (const Json& expected : golden.cases()) {
    INFO(expected.dump());
    const ImageProcessor processor(load(expected["config"].dump()));
    const ProcessedImage output = processor.process(
        noise(expected["source"][0], expected["source"][1], expected["seed"].get<std::uint32_t>()));
    CHECK(output.rows == expected["rows"]);
    CHECK(output.cols == expected["cols"]);
    CHECK(output.pixel_values.sizes().vec() == expected["tiles"].get<std::vector<std::int64_t>>());
    if (expected.contains("weighted_sum")) {
      CHECK(std::to_string(weighted_sum(output.pixel_values)) ==
            expected["weighted_sum"].get<std::string>());
      continue;
    }
    const auto values = golden.values<float>(expected);
    REQUIRE(output.pixel_values.numel() == static_cast<std::int64_t>(values.size()));
    CHECK(std::memcmp(output.pixel_values.data_ptr<float>(), values.data(),
                      values.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("a plan tells the tiles without the pixels") {
  ImageProcessorConfig config;
  config.size_longest_edge = 2048;
  config.max_image_size_longest_edge = 512;
  const TilePlan plan = plan_tiles(config, {1080, 1920});
  CHECK(plan.resized.height == 1152);
  CHECK(plan.resized.width == 2048);
  CHECK(plan.tiled.height == 1536);
  CHECK(plan.tiled.width == 2048);
  CHECK(plan.rows == 3);
  CHECK(plan.cols == 4);
}

TEST_CASE("a picture is changed where it has the fewest pixels") {
  ImageProcessorConfig config;
  config.size_longest_edge = 64;
  config.max_image_size_longest_edge = 32;
  const ImageProcessor processor(config);
  for (const Image& image : {noise(90, 120, 1), noise(20, 30, 1), noise(64, 48, 1)}) {
    INFO(image.height << " x " << image.width);
    const TilePlan plan = processor.plan({image.height, image.width});
    Image seen;
    const auto invert = [&](Image picture) {
      seen = picture;
      for (std::uint8_t& value : picture.pixels) value = static_cast<std::uint8_t>(255 - value);
      return picture;
    };
    const ProcessedImage changed = processor.process(image, false, invert);
    const bool shrinks = image.height > plan.resized.height;
    const Image wanted = shrinks ? resize(image, plan.resized.height, plan.resized.width,
                                          static_cast<Filter>(config.resample))
                                 : image;
    CHECK(seen.pixels == wanted.pixels);
    CHECK(changed.rows == plan.rows);
    CHECK(changed.pixel_values.equal(processor.process(invert(wanted)).pixel_values));
  }
}

TEST_CASE("a published config is read") {
  const ImageProcessorConfig config = load(R"({
    "do_convert_rgb": true, "do_image_splitting": false, "do_pad": false,
    "image_mean": [0.25, 0.5, 0.75], "image_std": [1, 2, 3],
    "image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor",
    "max_image_size": {"longest_edge": 512}, "resample": 3, "rescale_factor": 0.5,
    "size": {"longest_edge": 2048}, "video_sampling": {"fps": 1}})");
  CHECK_FALSE(config.do_image_splitting);
  CHECK_FALSE(config.do_pad);
  CHECK(config.do_resize);
  CHECK(config.image_mean == std::vector<double>{0.25, 0.5, 0.75});
  CHECK(config.image_std == std::vector<double>{1, 2, 3});
  CHECK(config.max_image_size_longest_edge == 512);
  CHECK(config.size_longest_edge == 2048);
  CHECK(config.resample == 3);
  CHECK(config.rescale_factor == 0.5);
}

TEST_CASE("null means the class's default") {
  const ImageProcessorConfig config =
      load(R"({"size": null, "resample": null, "image_mean": null, "max_image_size": null})");
  CHECK(config.size_longest_edge == 1456);
  CHECK(config.max_image_size_longest_edge == 364);
  CHECK(config.resample == 1);
  CHECK(config.image_mean == std::vector<double>{0.5, 0.5, 0.5});
}

TEST_CASE("processor_config.json comes first where it has an image processor") {
  Folder folder;
  folder.write(kSingle, R"({"resample": 2})");
  folder.write(kCombined, R"({"processor_class": "SmolVLMProcessor", "image_seq_len": 64})");
  CHECK(ImageProcessorConfig::load(folder.path()).resample == 2);
  folder.write(kCombined, R"({"image_processor": {"resample": 3}, "image_seq_len": 64})");
  CHECK(ImageProcessorConfig::load(folder.path()).resample == 3);
}

TEST_CASE("errors of the config name file and key") {
  Folder folder;
  CHECK_THROWS_WITH(ImageProcessorConfig::load(folder.path()),
                    folder.path().string() +
                        ": no image processor config: wanted preprocessor_config.json, or "
                        "processor_config.json with image_processor");
  folder.write(kCombined, R"({"image_processor": {"do_resize": 1}})");
  CHECK_THROWS_WITH(ImageProcessorConfig::load(folder.path()),
                    folder.file(kCombined) +
                        ": image_processor: do_resize: wrong type: got number 1, wanted true or "
                        "false");

  const std::string at = folder.file(kSingle) + ": ";
  const auto fails = [&](const std::string& text, const std::string& message) {
    CHECK_THROWS_WITH(load(text), at + message);
  };
  fails(R"({"resample": 6})",
        "resample: unknown filter: got 6, wanted 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 "
        "box or 5 Hamming");
  fails(R"({"size": {"longest_edge": -1}})",
        "size: longest_edge: impossible size: got -1, wanted 1 to 16384 pixels");
  fails(R"({"size": {"height": 5}})",
        "size: width: impossible size: got 0, wanted 1 to 16384 pixels");
  fails(R"({"size": {"shortest_edge": 5}})",
        R"(size: unsupported size: got {"shortest_edge":5}, wanted longest_edge, or height and )"
        "width");
  fails(R"({"size": 5})", "size: wrong type: got number 5, wanted object");
  fails(R"({"max_image_size": {"longest_edge": 0}})",
        "max_image_size: longest_edge: impossible size: got 0, wanted 1 to 16384 pixels");
  fails(R"({"max_image_size": {"longest_edge": 512000}})",
        "max_image_size: longest_edge: impossible size: got 512000, wanted 1 to 16384 pixels");
  fails(R"({"image_mean": [0.5, 0.5]})",
        "image_mean: wrong value: got [0.5,0.5], wanted a number, or a list of three numbers");
  fails(R"({"image_mean": ["a", 1, 1]})",
        R"(image_mean: wrong value: got ["a",1,1], wanted a number, or a list of three numbers)");
  fails(R"({"image_std": [1, 0, 1]})",
        "image_std: division by zero: got 0, wanted numbers other than 0");
  fails(R"({"image_processor_type": "Qwen2VLImageProcessor"})",
        "image_processor_type: unsupported image processor: got 'Qwen2VLImageProcessor', wanted "
        "SmolVLMImageProcessor or Idefics3ImageProcessor");
  fails("[]", "wrong type: got array, wanted object");
}

TEST_CASE("a picture too long for its tiles is refused") {
  ImageProcessorConfig config;
  config.do_resize = false;
  CHECK_THROWS_WITH(
      plan_tiles(config, {1, 100'000'000}),
      "picture is too long to be split into tiles: got 1 × 100000000 pixels, 364 × 100000264 as "
      "tiles, wanted at most 268435456 pixels as tiles (do_resize bounds the size)");
}

}  // namespace
}  // namespace vlm
