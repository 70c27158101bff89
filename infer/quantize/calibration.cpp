#include "infer/quantize/calibration.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/nn/weights/stored_observed.h"

namespace vlm::infer {
namespace {

constexpr double kPictureWeight = 0.2;          // of a token of a picture, beside one of text
constexpr std::int64_t kMostBytes = 1LL << 30;  // of the sums of a pass
constexpr std::int64_t kMostPasses = 4;         // unless the memory needs more

// Layers of one block that are given the same inputs.
const std::vector<std::vector<std::string>>& same_inputs() {
  static const std::vector<std::vector<std::string>> groups = {
      {"q_proj.weight", "k_proj.weight", "v_proj.weight"}, {"gate_proj.weight", "up_proj.weight"}};
  return groups;
}

// The layer whose inputs are those of `name`: itself, or the first of its group in the same module.
std::string leader_of(const std::string& name, const NamedLayers& layers) {
  for (const auto& group : same_inputs()) {
    for (const std::string& member : group) {
      if (!name.ends_with("." + member)) continue;
      const std::string module = name.substr(0, name.size() - member.size());
      for (const std::string& other : group) {
        const bool is_there = std::ranges::any_of(
            layers, [&](const auto& layer) { return layer.first == module + other; });
        if (is_there) return module + other;
      }
    }
  }
  return name;
}

// "model.layers.3.mlp.up_proj.weight" → "model.layers.3"
std::string block_of_layer(const std::string& name) {
  std::size_t end = 0;
  for (std::size_t at = name.find('.'); at != std::string::npos; at = name.find('.', at + 1)) {
    const std::size_t next = name.find('.', at + 1);
    if (next == std::string::npos) break;
    const std::string part = name.substr(at + 1, next - at - 1);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos) end = next;
  }
  return name.substr(0, end);
}

std::int64_t bytes_of_sums(const Linear& layer) {
  return 4 * layer.in_features() * layer.in_features();
}

// Puts the layers' own weights back, however the pass ends.
class Observation {
 public:
  Observation(const NamedLayers& layers, std::map<std::string, std::shared_ptr<InputSums>> sums)
      : layers_(layers) {
    for (const auto& [name, layer] : layers_) {
      weights_.push_back(layer->dense_weight());
      const auto found = sums.find(name);
      layer->store(std::make_shared<StoredObserved>(layer->map().weight,
                                                    found == sums.end() ? nullptr : found->second));
    }
  }
  ~Observation() {
    for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i].second->set_weight(weights_[i]);
  }
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;

 private:
  const NamedLayers& layers_;
  std::vector<at::Tensor> weights_;
};

}  // namespace

Calibration::Calibration(VisionLanguageModel& model, const Processor& processor,
                         const std::string& rows, std::int64_t samples)
    : model_(model) {
  const c10::InferenceMode inference;
  const auto dataset = data::load_dataset(rows, {});
  const std::int64_t wanted = std::min(samples, dataset->size());
  const std::vector<std::int64_t> media = model.media_token_ids();
  for (std::int64_t i = 0; i < wanted; ++i) {
    throw_if_stopped();
    const std::int64_t index = i * dataset->size() / wanted;
    try {
      const data::Example example = data::encode_example(
          dataset->at(index), processor, {.length_policy = data::LengthPolicy::kTruncate});
      const data::Batch batch = data::collate({example}, 0);
      Prompt prompt{.ids = batch.inputs.input_ids, .positions = batch.inputs.positions};
      if (!example.pictures.empty()) prompt.features = model.encode(example.pictures.pixels);
      prompt.weights = at::ones({prompt.ids.numel()});
      for (const std::int64_t id : media) {
        prompt.weights.masked_fill_(prompt.ids.flatten().eq(id), kPictureWeight);
      }
      prompts_.push_back(std::move(prompt));
    } catch (const Error& error) {
      log_warning(concat("passed over: ", error.what()));
    }
  }
  if (prompts_.empty()) {
    throw Error({.what = "no row can be used to calibrate",
                 .where = rows,
                 .wanted = "rows as for finetune, with pictures, questions and answers"});
  }
}

std::map<std::string, at::Tensor> Calibration::sums_of(const NamedLayers& layers,
                                                       const std::function<void()>& done) const {
  const c10::InferenceMode inference;
  std::map<std::string, std::shared_ptr<InputSums>> sums;
  for (const auto& [name, layer] : layers) {
    if (leader_of(name, layers) != name) continue;
    sums[name] = std::make_shared<InputSums>();
    sums[name]->sums = at::zeros({layer->in_features(), layer->in_features()});
  }
  {
    const Observation observation(layers, sums);
    for (const Prompt& prompt : prompts_) {
      throw_if_stopped();
      for (const auto& [name, one] : sums) one->row_weights = prompt.weights;
      model_.decode(model_.embed(prompt.ids, prompt.features), {}, nullptr, prompt.positions);
      if (done) done();
    }
  }
  std::map<std::string, at::Tensor> found;
  for (const auto& [name, layer] : layers) found[name] = sums.at(leader_of(name, layers))->sums;
  return found;
}

std::vector<NamedLayers> split_passes(const NamedLayers& layers) {
  std::int64_t blocks = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i == 0 || block_of_layer(layers[i].first) != block_of_layer(layers[i - 1].first)) ++blocks;
  }
  const std::int64_t most_blocks = (blocks + kMostPasses - 1) / kMostPasses;
  std::vector<NamedLayers> passes;
  std::int64_t bytes = 0, taken = 0;
  std::string block;
  for (const auto& layer : layers) {
    const std::string own = block_of_layer(layer.first);
    const bool is_next = passes.empty() || own != block;
    if (is_next && (passes.empty() || taken == most_blocks || bytes > kMostBytes)) {
      passes.emplace_back();
      bytes = taken = 0;
    }
    if (is_next) ++taken;
    block = own;
    if (leader_of(layer.first, layers) == layer.first) bytes += bytes_of_sums(*layer.second);
    passes.back().push_back(layer);
  }
  return passes;
}

}  // namespace vlm::infer
