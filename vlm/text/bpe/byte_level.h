// GPT-2's alphabet: one printable character for each of the 256 bytes.
//
// Bytes 33-126, 161-172 and 174-255 stand for the code point of the same number, the other 68 for
// U+0100, U+0101, … in their order (so a space is "Ġ").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vlm {

// Appends the symbols of `bytes`.
void append_byte_symbols(std::string_view bytes, std::string& text);

std::optional<char> byte_of_symbol(char32_t symbol);

}  // namespace vlm
