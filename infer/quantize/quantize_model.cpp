#include "infer/quantize/quantize_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "infer/quantize/calibration.h"
#include "infer/quantize/gptq.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/models/weight_rules.h"

namespace vlm::infer {
namespace {

// A layer, and how it looks in 4 and in 8 bits.
struct Candidate {
  std::string name;
  std::shared_ptr<Linear> layer;
  QuantizedLayer chosen;
  double error = 0;
  // Where it may have more bits: those, and their error.
  std::optional<QuantizedLayer> wider;
  double wider_error = 0;
};

// "model.layers.12.mlp.up_proj.weight" → "model.layers.*.mlp.up_proj"
std::string kind_of_layer(const std::string& name) {
  std::string kind;
  const std::string module = name.substr(0, name.rfind('.'));
  for (std::size_t begin = 0; begin <= module.size();) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    const std::string part = module.substr(begin, end - begin);
    const bool is_number = part.find_first_not_of("0123456789") == std::string::npos;
    kind += (kind.empty() ? "" : ".") + (is_number ? "*" : part);
    begin = end + 1;
  }
  return kind;
}

// The layers in the order of the model.
std::vector<Candidate> list_candidates(const VisionLanguageModel& model, const std::string& dtype) {
  const auto formats = choose_formats(model, dtype);
  std::vector<Candidate> candidates;
  for (const auto& item : model.module().named_modules()) {
    const std::string name = item.key() + ".weight";
    const auto found = formats.find(name);
    if (found == formats.end()) continue;
    const bool is_four = std::string(found->second.format->name) == "int4";
    candidates.push_back(
        {.name = name, .layer = found->second.layer, .chosen = {.bits = is_four ? 4 : 8}});
  }
  return candidates;
}

void code_eight(Candidate& candidate) {
  const at::Tensor weight = candidate.layer->dense_weight();
  candidate.chosen = quantize_rows_of(weight);
  candidate.error = output_error(weight, candidate.chosen.dense(), {});
}

// `sums` undefined: without calibration.
void code_four(Candidate& candidate, const at::Tensor& sums, bool may_widen) {
  const at::Tensor weight = candidate.layer->dense_weight();
  candidate.chosen = sums.defined() ? QuantizedLayer{.bits = 4, .codes = gptq_codes(weight, sums)}
                                    : quantize_groups_of(weight, {});
  const at::Tensor coded = candidate.chosen.dense();
  candidate.error = output_error(weight, coded, sums);
  if (may_widen) {
    candidate.wider = quantize_rows_of(weight);
    candidate.wider_error = output_error(weight, candidate.wider->dense(), sums);
  }
  // Layers behind it are coded for what it will give.
  if (sums.defined()) candidate.layer->set_weight(coded.to(weight.scalar_type()));
}

// Codes the layers of 4 bits pass by pass.
void code_calibrated(std::vector<Candidate>& candidates, const Calibration& calibration,
                     bool may_widen) {
  NamedLayers fours;
  std::map<std::string, Candidate*> by_name;
  for (Candidate& candidate : candidates) {
    if (candidate.chosen.bits != 4) continue;
    fours.emplace_back(candidate.name, candidate.layer);
    by_name[candidate.name] = &candidate;
  }
  const std::vector<NamedLayers> passes = split_passes(fours);
  const std::int64_t prompts = calibration.samples() * std::ssize(passes);
  Progress progress("steps", prompts + std::ssize(fours));
  std::int64_t done = 0;
  for (const NamedLayers& pass : passes) {
    const auto sums = calibration.sums_of(pass, [&] { progress.update(++done, "rows"); });
    for (const auto& [name, layer] : pass) {
      throw_if_stopped();
      code_four(*by_name.at(name), sums.at(name), may_widen);
      progress.update(++done, "layers");
    }
  }
}

void code_plainly(std::vector<Candidate>& candidates, bool may_widen) {
  const auto fours = std::ranges::count_if(
      candidates, [](const Candidate& candidate) { return candidate.chosen.bits == 4; });
  Progress progress("layers", fours);
  std::int64_t done = 0;
  for (Candidate& candidate : candidates) {
    throw_if_stopped();
    if (candidate.chosen.bits != 4) continue;
    code_four(candidate, {}, may_widen);
    progress.update(++done);
  }
}

// Bytes of what isn't quantized.
double bytes_of_rest(const VisionLanguageModel& model, const std::vector<Candidate>& candidates) {
  double bytes = 0;
  for (const auto& [name, weight] : model.weights()) {
    const bool is_coded = std::ranges::any_of(
        candidates, [&key = name](const Candidate& candidate) { return candidate.name == key; });
    if (!is_coded) bytes += static_cast<double>(weight.nbytes());
  }
  return bytes;
}

double megabytes_of(double bytes) {
  return std::ceil(bytes / 1e5) / 10;
}

// Gives more bits where they take away most error for their bytes, up to `most` bytes in all.
void widen_by_error(std::vector<Candidate>& candidates, double bytes, double most) {
  if (bytes > most) {
    throw Error({.what = "the weights can't be so small",
                 .where = "--size-mb",
                 .got = fixed_text(most / 1e6, 1),
                 .wanted = concat("at least ", fixed_text(megabytes_of(bytes), 1))});
  }
  std::vector<Candidate*> order;
  for (Candidate& candidate : candidates) {
    if (candidate.wider) order.push_back(&candidate);
  }
  const auto added = [](const Candidate* one) {
    return static_cast<double>(one->wider->nbytes() - one->chosen.nbytes());
  };
  std::ranges::stable_sort(order, [&](const Candidate* a, const Candidate* b) {
    return (a->error - a->wider_error) / added(a) > (b->error - b->wider_error) / added(b);
  });
  for (Candidate* candidate : order) {
    if (bytes + added(candidate) > most) continue;
    bytes += added(candidate);
    candidate->chosen = *std::move(candidate->wider);
    candidate->error = candidate->wider_error;
  }
}

std::vector<QuantizedKind> sum_kinds(const std::vector<Candidate>& candidates) {
  std::vector<QuantizedKind> kinds;
  for (const Candidate& candidate : candidates) {
    const std::string name = kind_of_layer(candidate.name);
    auto found = std::ranges::find(kinds, name, &QuantizedKind::name);
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {.name = name});
    ++(candidate.chosen.bits == 4 ? found->fours : found->eights);
    found->bytes += static_cast<double>(candidate.chosen.nbytes());
    found->error += candidate.error;
  }
  for (QuantizedKind& kind : kinds) kind.error /= static_cast<double>(kind.fours + kind.eights);
  return kinds;
}

}  // namespace

QuantizedModel quantize_model(VisionLanguageModel& model, const Processor& processor,
                              const QuantizeOptions& options) {
  const at::NoGradGuard no_grad;
  std::vector<Candidate> candidates = list_candidates(model, options.dtype);
  const double rest = bytes_of_rest(model, candidates);
  for (Candidate& candidate : candidates) {
    throw_if_stopped();
    if (candidate.chosen.bits == 8) code_eight(candidate);
  }
  const bool may_widen = options.size_mb.has_value();
  if (options.calibration.empty()) {
    code_plainly(candidates, may_widen);
  } else {
    code_calibrated(candidates, Calibration(model, processor, options.calibration, options.samples),
                    may_widen);
  }
  const auto sum = [&] {
    double bytes = rest;
    for (const Candidate& one : candidates) bytes += static_cast<double>(one.chosen.nbytes());
    return bytes;
  };
  if (may_widen) widen_by_error(candidates, sum(), *options.size_mb * 1e6);
  QuantizedModel quantized{.kinds = sum_kinds(candidates), .bytes = sum()};
  for (Candidate& candidate : candidates) {
    quantized.layers.emplace(candidate.name, std::move(candidate.chosen));
  }
  return quantized;
}

std::string describe_quantized(const QuantizedModel& quantized) {
  std::size_t width = 5;
  for (const QuantizedKind& kind : quantized.kinds) width = std::max(width, kind.name.size());
  const auto cell = [](const std::string& text, std::size_t size) {
    return std::string(size > text.size() ? size - text.size() : 0, ' ') + text;
  };
  const auto line = [&](const std::string& name, const std::string& four, const std::string& eight,
                        const std::string& size, const std::string& error) {
    return name + std::string(width - name.size(), ' ') + cell(four, 8) + cell(eight, 8) +
           cell(size, 10) + cell(error, 12) + "\n";
  };
  std::string text = line("layer", "4 bits", "8 bits", "MB", "error, %");
  for (const QuantizedKind& kind : quantized.kinds) {
    text += line(kind.name, concat(kind.fours), concat(kind.eights),
                 fixed_text(kind.bytes / 1e6, 2), fixed_text(100 * std::sqrt(kind.error), 2));
  }
  return text + concat("all weights: ", fixed_text(quantized.bytes / 1e6, 2), " MB\n");
}

}  // namespace vlm::infer
