// Picture features in memory, for requests that show what earlier ones showed.
//
//   digest of a tile (or picture) ─► find ─► its features, to the bit, or nothing
//
// Holds at most so many bytes: what was used longest ago leaves first. Of one model; for the
// model's thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

namespace vlm::infer {

class KeptFeatures {
 public:
  // 0: keeps nothing.
  void set_bound(std::int64_t bytes);

  // Undefined when there are none.
  at::Tensor find(const std::string& digest);
  void keep(const std::string& digest, const at::Tensor& features);

  bool is_keeping() const { return most_bytes_ > 0; }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t hits() const { return hits_; }
  std::int64_t misses() const { return misses_; }

 private:
  struct Entry {
    std::string digest;
    at::Tensor features;
  };
  void drop_oldest();

  std::int64_t most_bytes_ = 0, bytes_ = 0, hits_ = 0, misses_ = 0;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_digest_;
};

}  // namespace vlm::infer
