// The formats that a weight can be converted to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

struct WeightFormat {
  const char* name;  // as StoredWeight::format() says it
  // Whether a weight [out, in] can be stored so.
  bool (*fits)(std::int64_t out, std::int64_t in);
  // Bytes that such a weight takes.
  double (*nbytes)(std::int64_t out, std::int64_t in);
  // From float32, bfloat16 or float16, on the device where it is to stay; on a CPU it may be mapped
  // from a file, and the work is shared between threads.
  std::shared_ptr<const StoredWeight> (*store)(const at::Tensor& value);
};

// The format of that name; the name is one of the program's own.
const WeightFormat& find_weight_format(const std::string& name);

}  // namespace vlm
