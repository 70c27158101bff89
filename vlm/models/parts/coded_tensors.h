// Weights of a file that holds some of them in few bits, which a model that is only run can take as
// they are.
#pragma once

#include <memory>
#include <string>

#include "vlm/io/checkpoint.h"
#include "vlm/nn/weights/stored_weight.h"

namespace vlm {

class CodedTensors : public TensorSource {
 public:
  // The format of stored(key), as StoredWeight::format() says it; empty: the file holds numbers.
  virtual std::string format(const std::string& key) const = 0;
  virtual std::shared_ptr<const StoredWeight> stored(const std::string& key) const = 0;
};

}  // namespace vlm
