// Finds features of pictures that were encoded earlier, by the pictures' content.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "vlm/models/interface/processor.h"

namespace vlm::data {

struct KnownPictures {
  std::vector<MediumText> texts;
  at::Tensor features;  // [N, L, C]
};

// Called by several threads.
class PictureLookup {
 public:
  virtual ~PictureLookup() = default;
  virtual std::optional<KnownPictures> find(const std::string& key) const = 0;
};

}  // namespace vlm::data
