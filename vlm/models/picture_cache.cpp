#include "vlm/models/picture_cache.h"

#include <filesystem>

#include "vlm/core/concat.h"
#include "vlm/io/tensor_digest.h"

namespace vlm {

std::shared_ptr<FeatureCache> open_feature_cache(const FeatureCacheChoice& choice,
                                                 const VisionLanguageModel& model) {
  constexpr std::int64_t kManyParameters = 50'000'000;
  std::filesystem::path folder = choice.folder;
  if (choice.folder == "off") return nullptr;
  if (choice.folder == "auto") {
    std::int64_t parameters = 0;
    for (const auto& [name, weight] : model.picture_weights()) parameters += weight.numel();
    folder = default_feature_cache_folder();
    if (parameters < kManyParameters || folder.empty()) return nullptr;
  }
  return std::make_shared<FeatureCache>(folder, static_cast<std::uint64_t>(choice.gigabytes * 1e9));
}

std::string digest_picture_side(const VisionLanguageModel& model) {
  return concat(digest_tensors(model.picture_weights()), " ", model.picture_settings(), " ",
                model.dtype(), " ", model.product_dtype, " ", model.device().type());
}

}  // namespace vlm
