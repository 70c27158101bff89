#include "vlm/image/processor_values.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/image/resample.h"

namespace vlm {
namespace {

// Longest edge that a config may ask for: no checkpoint comes near, and a typing error of three
// more digits shall not end in an allocation of gigabytes.
constexpr std::int64_t kMaxEdge = 16384;

void check_edge(std::int64_t edge, const std::string& where) {
  if (edge >= 1 && edge <= kMaxEdge) return;
  throw Error({.what = "impossible size",
               .where = where,
               .got = concat(edge),
               .wanted = concat("1 to ", kMaxEdge, " pixels")});
}

}  // namespace

void read_size(const Json& value, SizeValue& size, const std::string& where) {
  if (value.is_null()) return;
  SizeValue read;
  read_fields(
      value,
      {{"longest_edge", &read.longest_edge}, {"height", &read.height}, {"width", &read.width}},
      UnknownKeys::kIgnore, where);
  if (read.longest_edge == 0 && read.height == 0 && read.width == 0) {
    throw Error({.what = "unsupported size",
                 .where = where,
                 .got = value.dump(),
                 .wanted = "longest_edge, or height and width"});
  }
  if (read.longest_edge != 0) {
    check_edge(read.longest_edge, where + ": longest_edge");
  } else {
    check_edge(read.height, where + ": height");
    check_edge(read.width, where + ": width");
  }
  size = read;
}

void read_longest_edge(const Json& value, std::int64_t& edge, const std::string& where) {
  if (value.is_null()) return;
  std::int64_t read = 0;
  read_fields(value, {{"longest_edge", &read}}, UnknownKeys::kIgnore, where);
  check_edge(read, where + ": longest_edge");
  edge = read;
}

void read_channels(const Json& value, std::vector<double>& out, const std::string& where) {
  if (value.is_null()) return;
  const bool numbers =
      value.is_number() ||
      (value.is_array() && value.size() == 3 &&
       std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_number(); }));
  if (!numbers) {
    throw Error({.what = "wrong value",
                 .where = where,
                 .got = value.dump(),
                 .wanted = "a number, or a list of three numbers"});
  }
  out = value.is_number() ? std::vector<double>(3, value.get<double>())
                          : value.get<std::vector<double>>();
}

void check_filter(std::int64_t resample, const std::string& where) {
  if (resample >= 0 && resample < kFilterCount) return;
  throw Error({.what = "unknown filter",
               .where = where,
               .got = concat(resample),
               .wanted = "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box or 5 Hamming"});
}

void check_std(const std::vector<double>& std, const std::string& where) {
  for (const double value : std) {
    if (static_cast<float>(value) != 0.0F) continue;
    throw Error({.what = "division by zero",
                 .where = where,
                 .got = concat(value),
                 .wanted = "numbers other than 0"});
  }
}

namespace {

// The object under `key` of processor_config.json; null where there is none.
Json find_in_combined(const std::filesystem::path& folder, const char* key) {
  const std::filesystem::path combined = folder / "processor_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(combined, ignored)) return {};
  Json whole = load_json(combined);
  return whole.is_object() && whole.contains(key) ? std::move(whole[key]) : Json();
}

std::string where_in_combined(const std::filesystem::path& folder, const char* key) {
  return concat((folder / "processor_config.json").string(), ": ", key);
}

}  // namespace

ProcessorFile find_image_processor(const std::filesystem::path& folder) {
  Json part = find_in_combined(folder, "image_processor");
  if (!part.is_null()) return {std::move(part), where_in_combined(folder, "image_processor")};
  const std::filesystem::path single = folder / "preprocessor_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(single, ignored)) return {load_json(single), single.string()};
  throw Error(
      {.what = "no image processor config",
       .where = folder.string(),
       .wanted = "preprocessor_config.json, or processor_config.json with image_processor"});
}

ProcessorFile find_video_processor(const std::filesystem::path& folder) {
  Json part = find_in_combined(folder, "video_processor");
  if (!part.is_null()) return {std::move(part), where_in_combined(folder, "video_processor")};
  for (const char* name : {"video_preprocessor_config.json", "preprocessor_config.json"}) {
    const std::filesystem::path single = folder / name;
    std::error_code ignored;
    if (std::filesystem::exists(single, ignored)) return {load_json(single), single.string()};
  }
  part = find_in_combined(folder, "image_processor");
  if (!part.is_null()) return {std::move(part), where_in_combined(folder, "image_processor")};
  throw Error({.what = "no video processor config",
               .where = folder.string(),
               .wanted = "video_preprocessor_config.json, preprocessor_config.json, or "
                         "processor_config.json with video_processor"});
}

}  // namespace vlm
