// How numbers are stored in GGUF files: the types of tensors, and their blocks as float32.
//
//   type + blocks (bytes of a mapped file) ─► widen_gguf ─► float32
//
// A block holds some values of a row with the scale that they share. The results are those of the
// Python package `gguf`, bit for bit. Types that are rare in files of the supported models have a
// name here, for errors, and nothing else. Reference: ggml of llama.cpp, October 2026.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace vlm {

// The numbers are the files'.
enum class GgufType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
  kNVFP4 = 40,
};

struct GgufBlock {
  GgufType type;
  const char* name;         // "Q4_0"
  std::int64_t values = 1;  // of a block
  std::int64_t bytes = 1;   // of a block
  std::uint32_t file_type;  // general.file_type of a file that is mostly of it
};

// Null for a type that isn't read.
const GgufBlock* find_gguf_block(std::uint32_t type);
const GgufBlock& gguf_block(GgufType type);

// "Q4_0", "IQ2_XXS" or "type 99".
std::string gguf_type_name(std::uint32_t type);

// `values` numbers, whole blocks, which begin at any address.
void widen_gguf(GgufType type, const std::uint8_t* blocks, std::int64_t values, float* to);

}  // namespace vlm
