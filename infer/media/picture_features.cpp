#include "infer/media/picture_features.h"

#include <ATen/ops/cat.h>

#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/sha256.h"
#include "vlm/io/convert.h"
#include "vlm/nn/runtime.h"

namespace vlm::infer {
namespace {

// Parts of one short pass. A CPU is busy with one; a GPU takes so many in some hundredths of a
// second. A picture of patches is one part, however large: its patches see each other.
constexpr std::size_t kPartsOnGpu = 16;

std::string disk_content(const Pixels& pixels) {
  return concat("pixels 2 ", pixels.digest());
}

// Nothing else is needed of the pictures then but their digests.
void set_features(PictureFeatures& pictures, const at::Tensor& features) {
  pictures.features = features;
  pictures.pixels = {};
  for (PicturePart& part : pictures.parts) {
    part.features = at::Tensor();
    part.pixels.values = at::Tensor();
  }
}

}  // namespace

std::int64_t PictureFeatures::bytes() const {
  return pixels.bytes() + (features.defined() ? static_cast<std::int64_t>(features.nbytes()) : 0);
}

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
  encoded_units_ += pixels.units();
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
    std::string key = cache_ ? make_key(disk_content(picture->pixels)) : "";
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

void PictureEncoder::prepare(PictureFeatures& pictures) {
  if (pictures.features.defined() || pictures.pixels.empty() || !pictures.parts.empty()) return;
  for (Pixels& part : split_pixels(pictures.pixels)) {
    std::string digest = part.digest();
    pictures.parts.push_back({.pixels = std::move(part), .digest = std::move(digest)});
  }
  if (!cache_) return;
  const auto found = cache_->find(make_key(disk_content(pictures.pixels)));
  if (found) set_features(pictures, found->to(model_->device()));
}

bool PictureEncoder::encode_piece(PictureFeatures& pictures) {
  if (pictures.features.defined() || pictures.pixels.empty()) return true;
  const std::size_t most = model_->device().is_cpu() ? 1 : kPartsOnGpu;
  std::vector<PicturePart*> missing;
  for (PicturePart& part : pictures.parts) {
    if (part.features.defined()) continue;
    if (kept_.is_keeping()) part.features = kept_.find(part.digest);
    if (part.features.defined()) continue;
    missing.push_back(&part);
    if (missing.size() == most) break;
  }
  if (!missing.empty()) {
    std::vector<Pixels> pixels;
    for (const PicturePart* part : missing) pixels.push_back(part->pixels);
    const at::Tensor features = encode(join_pixels(pixels));  // [ΣL, W]
    std::int64_t begin = 0;
    for (PicturePart* part : missing) {
      part->features = features.narrow(0, begin, part->pixels.tokens);
      begin += part->pixels.tokens;
      kept_.keep(part->digest, part->features);
    }
  }
  std::vector<at::Tensor> all;
  for (const PicturePart& part : pictures.parts) {
    if (!part.features.defined()) return false;
    all.push_back(part.features);
  }
  const at::Tensor features = all.size() == 1 ? all[0] : at::cat(all);
  if (cache_) cache_->store(make_key(disk_content(pictures.pixels)), features.cpu());
  set_features(pictures, features);
  return true;
}

}  // namespace vlm::infer
