// A GPU for machines without one: what tests ask of it.
//
// A program that links these files has a device of type CUDA. Its tensors lie at addresses that can
// never be read, so code that takes device memory for the host's ends in a segmentation fault. Each
// operator runs as the CPU's kernel on the same bytes, and is counted; so are copies between host
// and device and the times that the host waits. Where CUDA refuses what CPUs take (tensors of two
// devices, lists of mixed types in a fused optimizer, ...) this device refuses it too.
//
//   const DeviceCounts before = counts();
//   step();
//   CHECK((counts() - before).waits == 1);
//
// It has no time: an operator is done when it returns. Numbers are those of CPUs. LibTorch 2.11.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace simulated_cuda {

struct DeviceCounts {
  std::int64_t operators = 0;  // kernels: one an operator, none for views and new memory
  std::int64_t waits = 0;      // the host waited for the device
  std::int64_t uploads = 0, downloads = 0;  // copies; a value that is read is a download too
  std::int64_t bytes_up = 0, bytes_down = 0;
  std::int64_t pageable =
      0;  // non-blocking copies that wait all the same, as host memory isn't pinned
  std::map<std::string, std::int64_t> by_name;  // operators: "addmm.out"
};

DeviceCounts operator-(const DeviceCounts& later, const DeviceCounts& earlier);

// Since the program began, by all threads.
DeviceCounts counts();

// Bytes of device memory, in blocks of 512 as CUDA's allocator counts them.
std::int64_t current_bytes();
std::int64_t peak_bytes();
void reset_peak();

// Memory of the device: what doesn't fit throws c10::OutOfMemoryError. 16 GiB at the beginning.
inline constexpr std::int64_t kCapacity = std::int64_t{16} << 30;
void limit_bytes(std::int64_t bytes);

// New memory is filled with 0xFF, which is no number as a float, unless this is turned off: for
// models of gigabytes.
void fill_new_memory(bool is_on);

// Matrix products, convolutions and attention give zeros, unasked: what a model of gigabytes takes
// of the memory is known in minutes.
void skip_products(bool is_on);

// Which lines of this program wait: `record_waits` begins and ends recording, `waiting_places`
// gives the places so far, the most frequent first: a count, then the calls, the innermost first,
// as program(+offset). `addr2line -Cfpe PROGRAM OFFSET` names the line.
void record_waits(bool is_on);
std::string waiting_places();

}  // namespace simulated_cuda
