#include "infer/kept/kept_features.h"

namespace vlm::infer {

void KeptFeatures::set_bound(std::int64_t bytes) {
  most_bytes_ = bytes;
  while (bytes_ > most_bytes_) drop_oldest();
}

at::Tensor KeptFeatures::find(const std::string& digest) {
  const auto found = by_digest_.find(digest);
  if (found == by_digest_.end()) {
    ++misses_;
    return {};
  }
  ++hits_;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->features;
}

void KeptFeatures::keep(const std::string& digest, const at::Tensor& features) {
  const auto bytes = static_cast<std::int64_t>(features.nbytes());
  if (bytes > most_bytes_ || by_digest_.count(digest) > 0) return;
  while (bytes_ + bytes > most_bytes_) drop_oldest();
  // A copy: a part of a larger tensor would hold all of it.
  entries_.push_front({digest, features.clone()});
  by_digest_.emplace(digest, entries_.begin());
  bytes_ += bytes;
}

void KeptFeatures::drop_oldest() {
  bytes_ -= static_cast<std::int64_t>(entries_.back().features.nbytes());
  by_digest_.erase(entries_.back().digest);
  entries_.pop_back();
}

}  // namespace vlm::infer
