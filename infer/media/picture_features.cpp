#include "infer/media/picture_features.h"

#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/sha256.h"
#include "vlm/io/convert.h"
#include "vlm/nn/runtime.h"

namespace vlm::infer {

std::string PictureEncoder::make_key(const std::string& content) {
  std::call_once(is_digested_, [this] { model_digest_ = digest_picture_side(*model_); });
  return sha256_hex(concat(content, " ", model_digest_));
}

std::optional<CachedFeatures> PictureEncoder::find(const std::string& key) {
  return cache_ && !key.empty() ? cache_->find_with_note(key) : std::nullopt;
}

void PictureEncoder::store(const std::string& key, const at::Tensor& features,
                           const std::string& note) {
  if (cache_ && !key.empty()) cache_->store(key, features, note);
}

at::Tensor PictureEncoder::encode(const Pixels& pixels) {
  has_encoded_ = true;
  return model_->encode(pixels);
}

void PictureEncoder::release_memory() {
  if (!std::exchange(has_encoded_, false)) return;
  drop_unchanged_pages(model_->picture_weights());
  trim_heap();
}

void PictureEncoder::encode(const std::vector<std::shared_ptr<PictureFeatures>>& pictures) {
  std::vector<PictureFeatures*> missing;
  std::vector<std::string> keys;
  std::vector<Pixels> pixels;
  for (const auto& picture : pictures) {
    if (!picture || picture->features.defined() || picture->pixels.empty()) continue;
    std::string key = cache_ ? make_key(concat("pixels 2 ", picture->pixels.digest())) : "";
    if (cache_) {
      if (const auto found = cache_->find(key)) {
        picture->features = found->to(model_->device());
        picture->pixels = {};
        continue;
      }
    }
    missing.push_back(picture.get());
    keys.push_back(std::move(key));
    pixels.push_back(picture->pixels);
  }
  if (missing.empty()) return;
  const at::Tensor features = encode(join_pixels(pixels));  // [ΣL, W]
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < missing.size(); ++i) {
    const std::int64_t count = pixels[i].tokens;
    missing[i]->features = features.narrow(0, begin, count).clone();
    missing[i]->pixels = {};
    if (cache_) cache_->store(keys[i], missing[i]->features.cpu());
    begin += count;
  }
}

}  // namespace vlm::infer
