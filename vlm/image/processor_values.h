// Values that the config files of image and video processors share, read with their checks.
//
// Each function takes a key's value (null: the default stays) and the place that errors name, and
// throws Error for values that can't work.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

// An object of the checkpoint's files, and the words that say where it is.
struct ProcessorFile {
  Json object;
  std::string where;
};

// processor_config.json's "image_processor" where it has one (what transformers 5 saves), else
// preprocessor_config.json. Throws Error when there is none.
ProcessorFile find_image_processor(const std::filesystem::path& folder);
// processor_config.json's "video_processor" where it has one, else video_preprocessor_config.json,
// else preprocessor_config.json, else "image_processor", as transformers does.
ProcessorFile find_video_processor(const std::filesystem::path& folder);

// {"longest_edge": n}, or {"height": n, "width": m}; the first wins, as in the reference.
struct SizeValue {
  std::int64_t longest_edge = 0;  // 0: height × width instead
  std::int64_t height = 0;
  std::int64_t width = 0;
};

void read_size(const Json& value, SizeValue& size, const std::string& where);

// {"longest_edge": n} → n.
void read_longest_edge(const Json& value, std::int64_t& edge, const std::string& where);

// A number for all three channels, or one a channel.
void read_channels(const Json& value, std::vector<double>& out, const std::string& where);

void check_filter(std::int64_t resample, const std::string& where);
void check_std(const std::vector<double>& std, const std::string& where);

}  // namespace vlm
