// Digests of tensors: equal exactly when what they are of is.
#include "vlm/io/tensor_digest.h"

#include <ATen/ATen.h>

#include <set>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace vlm {
namespace {

TEST_CASE("a digest tells dtype, shape, values, names and order apart") {
  const at::Tensor zeros = at::zeros({2, 3});
  const std::vector<std::string> digests = {digest_tensor(zeros),
                                            digest_tensor(at::zeros({3, 2})),
                                            digest_tensor(at::zeros({6})),
                                            digest_tensor(at::zeros({2, 3}, at::kInt)),
                                            digest_tensor(at::zeros({0, 3})),
                                            digest_tensor(at::zeros({3, 0})),
                                            digest_tensor(at::Tensor()),
                                            digest_tensor(-zeros),
                                            digest_tensors({}),
                                            digest_tensors({{"a", zeros}}),
                                            digest_tensors({{"b", zeros}}),
                                            digest_tensors({{"a", zeros}, {"b", zeros}}),
                                            digest_tensors({{"b", zeros}, {"a", zeros}})};
  CHECK(std::set<std::string>(digests.begin(), digests.end()).size() == digests.size());
  CHECK(digest_tensor(zeros) == digest_tensor(at::zeros({2, 3})));
  const at::Tensor square = at::arange(9.0).view({3, 3});
  CHECK(digest_tensor(square.t()) == digest_tensor(square.t().contiguous()));
  CHECK(digest_tensor(zeros).size() == 32);
}

}  // namespace
}  // namespace vlm
