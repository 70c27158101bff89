#include "train/batches/picture_store.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/sha256.h"
#include "vlm/io/tensor_digest.h"
#include "vlm/models/picture_cache.h"
#include "vlm/nn/upload.h"

namespace vlm::train {
namespace {

constexpr std::size_t kMostWaiting = 64;  // entries to be written; beyond that the step waits

at::Tensor in_order(const std::vector<at::Tensor>& features, const data::Batch& batch) {
  std::vector<at::Tensor> placed;
  for (const std::int64_t i : batch.picture_order) {
    placed.push_back(features[static_cast<std::size_t>(i)]);
  }
  return placed.size() == 1 ? placed[0] : at::cat(placed);
}

// The published weights that make picture features, by name. A base has these with and without
// adapters.
NamedTensors published_tower(const VisionLanguageModel& model, const std::set<std::string>& kept) {
  std::set<std::string> of_tower;
  for (const auto& [name, weight] : model.picture_weights()) of_tower.insert(name);
  NamedTensors weights;
  for (const auto& [name, weight] : model.weights()) {
    if (of_tower.count(name) && !kept.count(name)) weights.emplace_back(name, weight);
  }
  return weights;
}

}  // namespace

bool trains_pictures(const VisionLanguageModel& model) {
  for (const auto& [name, weight] : model.picture_weights()) {
    if (weight.requires_grad()) return true;
  }
  return false;
}

at::Tensor encode_pictures(VisionLanguageModel& model, const data::Batch& batch) {
  if (batch.pictures.empty()) return {};
  const c10::AutoGradMode recording(c10::GradMode::is_enabled() && trains_pictures(model));
  std::vector<at::Tensor> features;
  std::vector<Pixels> pixels;
  for (const auto& pictures : batch.pictures) {
    if (!pictures.features.defined()) pixels.push_back(pictures.pixels);
  }
  // On a GPU they are joined there: the host's copies are pinned, one by one.
  if (pixels.size() > 1) {
    for (Pixels& one : pixels) one.values = upload(one.values, model.device());
  }
  at::Tensor encoded;
  if (!pixels.empty()) encoded = model.encode(join_pixels(pixels));
  std::int64_t begin = 0;
  for (const auto& pictures : batch.pictures) {
    if (pictures.features.defined()) {
      features.push_back(upload(pictures.features, model.device()));
      continue;
    }
    features.push_back(encoded.narrow(0, begin, pictures.tokens()));
    begin += pictures.tokens();
  }
  return in_order(features, batch);
}

// Layout: length of the head as 8 bytes, the head (JSON: texts, shape, dtype), the features.
at::Tensor to_entry(const data::KnownPictures& pictures) {
  const at::Tensor features = pictures.features.detach().cpu().contiguous();
  Json texts = Json::array();
  for (const MediumText& text : pictures.texts) {
    Json grids = Json::array();
    for (const PatchGrid& grid : text.grids) {
      grids.push_back({grid.frames, grid.height, grid.width});
    }
    texts.push_back({{"text", text.text},
                     {"is_video", text.kind == MediumText::Kind::kVideo},
                     {"numbers", {text.rows, text.cols, text.tokens, text.units}},
                     {"grids", grids},
                     {"grid_s", text.grid_s}});
  }
  const Json head = {{"texts", texts},
                     {"shape", features.sizes().vec()},
                     {"dtype", static_cast<int>(features.scalar_type())}};
  const std::string text = head.dump();
  const std::int64_t length = static_cast<std::int64_t>(text.size());
  at::Tensor entry =
      at::empty({8 + length + static_cast<std::int64_t>(features.nbytes())}, at::kByte);
  auto* bytes = static_cast<char*>(entry.mutable_data_ptr());
  std::memcpy(bytes, &length, 8);
  std::memcpy(bytes + 8, text.data(), text.size());
  std::memcpy(bytes + 8 + length, features.const_data_ptr(), features.nbytes());
  return entry;
}

namespace {

// `count` whole numbers, or nothing.
std::optional<std::vector<std::int64_t>> parse_numbers(const Json& json, std::size_t count) {
  if (!json.is_array() || json.size() != count) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Json& number : json) {
    if (!number.is_number_integer()) return std::nullopt;
    numbers.push_back(number.get<std::int64_t>());
  }
  return numbers;
}

std::optional<MediumText> parse_text(const Json& json) {
  const bool is_text = json.is_object() && json.contains("text") && json["text"].is_string() &&
                       json.contains("is_video") && json["is_video"].is_boolean() &&
                       json.contains("grids") && json["grids"].is_array() &&
                       json.contains("numbers") && json.contains("grid_s") &&
                       json["grid_s"].is_number();
  const auto numbers = is_text ? parse_numbers(json["numbers"], 4) : std::nullopt;
  if (!numbers) return std::nullopt;
  MediumText text{
      .kind = json["is_video"].get<bool>() ? MediumText::Kind::kVideo : MediumText::Kind::kPicture,
      .text = json["text"].get<std::string>(),
      .rows = (*numbers)[0],
      .cols = (*numbers)[1],
      .tokens = (*numbers)[2],
      .units = (*numbers)[3],
      .grid_s = json["grid_s"].get<double>()};
  for (const Json& grid : json["grids"]) {
    const auto sides = parse_numbers(grid, 3);
    if (!sides) return std::nullopt;
    text.grids.push_back({.frames = (*sides)[0], .height = (*sides)[1], .width = (*sides)[2]});
  }
  return text;
}

// The texts that to_entry writes into the head, or nothing.
std::optional<std::vector<MediumText>> parse_texts(const Json& head) {
  const auto texts = head.find("texts");
  if (texts == head.end() || !texts->is_array()) return std::nullopt;
  std::vector<MediumText> parsed;
  for (const Json& json : *texts) {
    auto text = parse_text(json);
    if (!text) return std::nullopt;
    parsed.push_back(std::move(*text));
  }
  return parsed;
}

// Features of that shape out of exactly these bytes.
at::Tensor parse_features(const Json& head, const char* bytes, std::size_t count) {
  const auto shape = head.find("shape"), dtype = head.find("dtype");
  if (shape == head.end() || dtype == head.end() || !shape->is_array() || shape->size() != 2 ||
      !dtype->is_number_integer()) {
    return {};
  }
  const auto number = dtype->get<std::int64_t>();
  at::ScalarType type = at::kFloat;
  if (number == static_cast<int>(at::kBFloat16)) type = at::kBFloat16;
  if (number == static_cast<int>(at::kHalf)) type = at::kHalf;
  if (number != static_cast<int>(type)) return {};
  std::vector<std::int64_t> sizes;
  auto left = static_cast<std::int64_t>(count / at::elementSize(type));
  for (const Json& side : *shape) {
    if (!side.is_number_integer()) return {};
    const auto size = side.get<std::int64_t>();
    if (size < 1 || left % size != 0) return {};  // so no product of them overflows
    left /= size;
    sizes.push_back(size);
  }
  if (left != 1 || count % at::elementSize(type) != 0) return {};
  at::Tensor features = at::empty(sizes, type);
  std::memcpy(features.mutable_data_ptr(), bytes, count);
  return features;
}

}  // namespace

std::optional<data::KnownPictures> from_entry(const at::Tensor& entry) {
  if (entry.scalar_type() != at::kByte || entry.numel() < 8) return std::nullopt;
  const auto* bytes = static_cast<const char*>(entry.const_data_ptr());
  std::int64_t length = 0;
  std::memcpy(&length, bytes, 8);
  if (length < 0 || length > entry.numel() - 8) return std::nullopt;
  const Json head = Json::parse(bytes + 8, bytes + 8 + length, nullptr, /*allow_exceptions=*/false);
  if (!head.is_object()) return std::nullopt;
  auto texts = parse_texts(head);
  at::Tensor features = parse_features(head, bytes + 8 + length,
                                       static_cast<std::size_t>(entry.numel() - 8 - length));
  if (!texts || !features.defined()) return std::nullopt;
  return data::KnownPictures{.texts = std::move(*texts), .features = std::move(features)};
}

PictureStore::PictureStore(std::shared_ptr<FeatureCache> cache, const VisionLanguageModel& model,
                           const Processor& processor)
    : cache_(std::move(cache)) {
  if (!cache_) return;
  settings_ = concat("training 5 ", processor.picture_settings(), " ", digest_picture_side(model));
  writer_ = std::thread([this] { write_entries(); });
}

PictureStore::~PictureStore() {
  if (!writer_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  writer_.join();
}

std::string PictureStore::entry_key(const std::string& content) const {
  return sha256_hex(concat(content, " ", settings_));
}

std::optional<data::KnownPictures> PictureStore::find(const std::string& key) const {
  if (!cache_ || key.empty()) return std::nullopt;
  const auto entry = cache_->find(entry_key(key));
  return entry ? from_entry(*entry) : std::nullopt;
}

at::Tensor PictureStore::features_of(VisionLanguageModel& model, const data::Batch& batch) {
  if (!cache_) {
    encoded_ += static_cast<std::int64_t>(batch.pictures.size());
    return encode_pictures(model, batch);
  }
  if (batch.pictures.empty()) return {};
  std::vector<at::Tensor> features;
  for (const auto& pictures : batch.pictures) features.push_back(features_of(model, pictures));
  return in_order(features, batch);
}

at::Tensor PictureStore::features_of(VisionLanguageModel& model,
                                     const data::SamplePictures& pictures) {
  if (pictures.features.defined()) return upload(pictures.features, model.device());
  // Looked up when the batch was made, perhaps before an earlier step encoded the same picture.
  if (const auto known = find(pictures.key)) return upload(known->features, model.device());
  is_needed_ = is_needed_ || is_released();
  restore_tower(model);
  const c10::NoGradGuard no_grad;
  const at::Tensor features = model.encode(pictures.pixels);
  ++encoded_;
  store_features(pictures, features);
  return features;
}

void PictureStore::store_features(const data::SamplePictures& pictures,
                                  const at::Tensor& features) {
  if (pictures.key.empty()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return to_write_.size() < kMostWaiting; });
  to_write_.emplace_back(entry_key(pictures.key),
                         to_entry({.texts = pictures.texts, .features = features}));
  changed_.notify_all();
}

void PictureStore::write_entries() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_stopping_ || !to_write_.empty(); });
    if (to_write_.empty()) return;
    const auto [key, entry] = std::move(to_write_.front());
    to_write_.pop_front();
    lock.unlock();
    try {
      cache_->store(key, entry);  // tells what goes wrong
    } catch (...) {               // no memory for telling it: the picture is encoded again
    }
    lock.lock();
    changed_.notify_all();
  }
}

void PictureStore::release_tower(VisionLanguageModel& model, const std::set<std::string>& kept,
                                 std::function<ModelPtr()> reload) {
  if (!cache_ || reload_ || is_needed_) return;
  const NamedTensors weights = published_tower(model, kept);
  released_ = digest_tensors(weights);
  std::int64_t bytes = 0;
  for (const auto& [name, weight] : weights) {
    bytes += static_cast<std::int64_t>(weight.nbytes());
    at::Tensor(weight).set_data(at::empty({0}, weight.options()));
  }
  reload_ = std::move(reload);
  kept_ = kept;
  log_debug(concat("the vision tower is released: ", bytes / 1'000'000, " MB"));
}

void PictureStore::restore_tower(VisionLanguageModel& model) {
  if (!reload_) return;
  const ModelPtr fresh = reload_();
  // The fresh model has no adapter, so names tell what belongs together.
  const NamedTensors from = published_tower(*fresh, kept_), to = published_tower(model, kept_);
  if (from.size() != to.size() || digest_tensors(from) != released_) {
    throw Error({.what = "the base model's vision weights changed while the run was on",
                 .hint = "put the files back, and the same command goes on"});
  }
  for (std::size_t i = 0; i < to.size(); ++i) at::Tensor(to[i].second).set_data(from[i].second);
  reload_ = nullptr;
}

}  // namespace vlm::train
