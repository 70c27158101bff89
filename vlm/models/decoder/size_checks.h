// Checks of the sizes in a config.json: what no model has is a broken file, and is refused before
// memory is asked for.
#pragma once

#include <cstdint>
#include <string>

namespace vlm {

constexpr std::int64_t kMaxSide = 1 << 20;
constexpr std::int64_t kMaxLayers = 1 << 10;

// Throws Error naming `where` unless `holds`.
void require(bool holds, const std::string& where, const std::string& what, std::int64_t got,
             const std::string& wanted);

void require_side(std::int64_t value, const std::string& where, std::int64_t most = kMaxSide);

// A matrix that is too large for any machine although its sides, `names`, may be right.
void require_matrix(std::int64_t rows, std::int64_t cols, const std::string& where,
                    const std::string& names);

// The largest matrices of a tower's layers, one by one and together.
void require_layers(std::int64_t layers, std::int64_t hidden_size, std::int64_t intermediate_size,
                    const std::string& where);

}  // namespace vlm
