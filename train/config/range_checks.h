// Errors about numbers of a config that are out of range, naming the key.
#pragma once

#include <cstdint>
#include <string>

namespace vlm::train {

[[noreturn]] void throw_out_of_range(const char* key, const std::string& got,
                                     const std::string& wanted);
// Integers also have an upper bound, so that products of two of them don't overflow.
constexpr std::int64_t kCountBound = 1'000'000;  // of samples, threads, megabytes …
constexpr std::int64_t kStepBound = 1'000'000'000'000;
void require_count(std::int64_t value, std::int64_t least, std::int64_t most, const char* key);
void require_between(double value, double least, double most, const char* key);

}  // namespace vlm::train
