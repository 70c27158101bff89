#include "infer/server/fetch/public_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace vlm::infer {
namespace {

using Bytes = std::array<std::uint8_t, 16>;

struct AddressRange {
  const char* begin;
  int bits;
};

constexpr AddressRange kClosedV4[] = {
    {"0.0.0.0", 8},      {"10.0.0.0", 8},     {"100.64.0.0", 10}, {"127.0.0.0", 8},
    {"169.254.0.0", 16}, {"172.16.0.0", 12},  {"192.0.0.0", 24},  {"192.0.2.0", 24},
    {"192.88.99.0", 24}, {"192.168.0.0", 16}, {"198.18.0.0", 15}, {"198.51.100.0", 24},
    {"203.0.113.0", 24}, {"224.0.0.0", 4},    {"240.0.0.0", 4}};
// Global unicast, and what of it is for tunnels, examples and protocols. IPv4 addresses in IPv6
// ones, NAT64, private and link-local addresses all lie outside.
constexpr AddressRange kOpenV6 = {"2000::", 3};
constexpr AddressRange kClosedV6[] = {
    {"2001::", 23}, {"2001:db8::", 32}, {"2002::", 16}, {"3fff::", 20}};

bool parse(int family, const std::string& text, Bytes& bytes) {
  return ::inet_pton(family, text.c_str(), bytes.data()) == 1;
}

bool is_in(const Bytes& address, int family, const AddressRange& range) {
  Bytes begin = {};
  parse(family, range.begin, begin);
  for (int bit = 0; bit < range.bits; ++bit) {
    const auto at = static_cast<std::size_t>(bit / 8);
    const auto mask = static_cast<std::uint8_t>(0x80 >> (bit % 8));
    if ((address[at] & mask) != (begin[at] & mask)) return false;
  }
  return true;
}

}  // namespace

bool is_public_address(const std::string& text) {
  Bytes address = {};
  const auto holds = [&address](int family) {
    return [&address, family](const AddressRange& range) { return is_in(address, family, range); };
  };
  if (parse(AF_INET, text, address)) return std::ranges::none_of(kClosedV4, holds(AF_INET));
  return parse(AF_INET6, text, address) && is_in(address, AF_INET6, kOpenV6) &&
         std::ranges::none_of(kClosedV6, holds(AF_INET6));
}

}  // namespace vlm::infer
