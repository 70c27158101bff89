#include "vlm/text/bpe/byte_level.h"

#include <array>

#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

struct Alphabet {
  Alphabet() {
    char32_t next = 0x100;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
      const char32_t symbol = printable ? static_cast<char32_t>(byte) : next++;
      symbols[byte] = to_utf8(symbol);
      bytes[symbol] = static_cast<std::int16_t>(byte);
    }
  }

  std::array<std::string, 256> symbols;
  std::array<std::int16_t, 0x144> bytes = make_empty();

 private:
  static std::array<std::int16_t, 0x144> make_empty() {
    std::array<std::int16_t, 0x144> empty;
    empty.fill(-1);
    return empty;
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

void append_byte_symbols(std::string_view bytes, std::string& text) {
  const Alphabet& table = alphabet();
  for (const char byte : bytes) text += table.symbols[static_cast<unsigned char>(byte)];
}

std::optional<char> byte_of_symbol(char32_t symbol) {
  const auto& bytes = alphabet().bytes;
  if (symbol >= bytes.size() || bytes[symbol] < 0) return std::nullopt;
  return static_cast<char>(bytes[symbol]);
}

}  // namespace vlm
