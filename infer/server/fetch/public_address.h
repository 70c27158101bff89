// Whether an address is one of the public network: not this machine, its neighbours, a special
// range, or an IPv4 address inside an IPv6 one.
//
//   "93.184.216.34", "2606:2800::1" ─► true     "127.0.0.1", "10.0.0.1", "::ffff:8.8.8.8" ─► false
//
// After IANA's registries of special-purpose addresses (IPv4, IPv6).
#pragma once

#include <string>

namespace vlm::infer {

// False for a text that is no address, too.
bool is_public_address(const std::string& text);

}  // namespace vlm::infer
