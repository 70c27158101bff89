#include "vlm/io/tensor_digest.h"

#include <vector>

#include "vlm/core/concat.h"
#include "vlm/io/parallel.h"
#include "vlm/io/xxh3.h"

namespace vlm {

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
  run_pieces(std::ssize(tensors), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    digests[at] = digest_tensor(tensors[at].second);
  });
  Xxh3 hash;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    hash.add_text(tensors[i].first);
    hash.add_text(digests[i]);
  }
  return hash.hex();
}

}  // namespace vlm
