// Errors about numbers of a config that are out of range, naming the key.
#pragma once

#include <cstdint>
#include <string>

namespace vlm::train {

[[noreturn]] void throw_out_of_range(const char* key, const std::string& got,
                                     const std::string& wanted);
void require_at_least(std::int64_t value, std::int64_t least, const char* key);
void require_between(double value, double least, double most, const char* key);

}  // namespace vlm::train
