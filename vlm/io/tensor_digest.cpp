#include "vlm/io/tensor_digest.h"

#include <ATen/Parallel.h>

#define XXH_INLINE_ALL  // the header holds the implementation; nothing is linked
#include <xxhash.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "vlm/core/concat.h"

namespace vlm {
namespace {

// Text and bytes into one hash; texts end with a byte that they don't hold, so that parts can't be
// told differently.
class Xxh3 {
 public:
  Xxh3() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
  ~Xxh3() { XXH3_freeState(state_); }
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;

  void add(const void* data, std::size_t bytes) { XXH3_128bits_update(state_, data, bytes); }
  void add_text(std::string_view text) {
    add(text.data(), text.size());
    add("\0", 1);
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_);
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
    return text;
  }

 private:
  XXH3_state_t* state_;
};

}  // namespace

std::string digest_tensor(const at::Tensor& tensor) {
  Xxh3 hash;
  if (!tensor.defined()) {
    hash.add_text("undefined");
    return hash.hex();
  }
  const at::Tensor flat = tensor.detach().cpu().contiguous();
  hash.add_text(concat(at::toString(flat.scalar_type()), " ", shape_text(flat.sizes())));
  hash.add(flat.data_ptr(), flat.nbytes());
  return hash.hex();
}

std::string digest_tensors(const NamedTensors& tensors) {
  std::vector<std::string> digests(tensors.size());
  at::parallel_for(0, static_cast<std::int64_t>(tensors.size()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) {
                       digests[i] = digest_tensor(tensors[i].second);
                     }
                   });
  Xxh3 hash;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    hash.add_text(tensors[i].first);
    hash.add_text(digests[i]);
  }
  return hash.hex();
}

}  // namespace vlm
