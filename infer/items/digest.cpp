#include "infer/items/digest.h"

#include <cstring>
#include <iomanip>
#include <sstream>

namespace vlm::infer {

void Digest::add(std::uint64_t number) {
  // An odd multiplier spreads a changed bit upwards, the shift brings it down again.
  state_ = (state_ ^ number) * 0x9e3779b97f4a7c15ULL;
  state_ ^= state_ >> 29;
}

void Digest::add(std::string_view bytes) {
  add(static_cast<std::uint64_t>(bytes.size()));
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t count = bytes.size() < sizeof word ? bytes.size() : sizeof word;
    std::memcpy(&word, bytes.data(), count);
    add(word);
    bytes.remove_prefix(count);
  }
}

std::string Digest::hex() const {
  std::ostringstream out;
  out << std::hex << std::setfill('0') << std::setw(16) << state_;
  return out.str();
}

std::uint64_t digest_of(std::string_view bytes) {
  Digest digest;
  digest.add(bytes);
  return digest.value();
}

}  // namespace vlm::infer
