// Models in several GGUF files, as llama-gguf-split of llama.cpp writes them.
//
//   model-00001-of-00003.gguf, its keys ─► the paths of the other two
//
// Each part says how many there are ("split.count") and which it is ("split.no", from 0); where the
// others are is known by their names alone. All keys of the model are in the first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "vlm/io/gguf/gguf_header.h"

namespace vlm {

inline constexpr const char* kPartCount = "split.count";

struct GgufPartName {
  std::string model;           // "model"
  std::int64_t number, count;  // from 1
};

// What the name of a file says; nothing where it isn't called as a part.
std::optional<GgufPartName> parse_gguf_part(const std::filesystem::path& path);

// Of a first part, the others in their order. Throws Error for another part, a name that doesn't
// tell its number, and a file that isn't there.
std::vector<std::filesystem::path> other_gguf_parts(const std::filesystem::path& first,
                                                    const GgufHeader& header);

// Throws Error if the file isn't part `number` of `count`.
void check_gguf_part(const GgufHeader& header, std::int64_t number, std::int64_t count);

}  // namespace vlm
