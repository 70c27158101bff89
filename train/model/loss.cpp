#include "train/model/loss.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/module.h>

#include "train/batches/picture_store.h"
#include "vlm/nn/upload.h"

namespace vlm::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the head's pass works on; the pointer is used in forward alone.
struct HeadPass {
  VisionLanguageModel* model = nullptr;
  at::Tensor labels;
  std::int64_t chunk = 1;
};

// Logits [m, V] → the sum of their losses, and in the same memory their gradient.
at::Tensor cross_entropy_in_place(at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor columns = labels.unsqueeze(1);
  const at::Tensor label_logits = logits.gather(1, columns);
  const at::Tensor largest = logits.amax(1, /*keepdim=*/true);
  const at::Tensor sums = logits.sub_(largest).exp_().sum(1, /*keepdim=*/true);
  logits.div_(sums).scatter_add_(1, columns, at::full_like(label_logits, -1));
  return (sums.log() + largest - label_logits).sum();
}

class HeadLoss : public torch::autograd::Function<HeadLoss> {
 public:
  // `parameters`: the head's, those that are trained and those that aren't.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            at::TensorList parameters, const HeadPass& pass) {
    const at::Tensor grad_hidden = at::empty_like(hidden);
    variable_list grads(parameters.size());
    at::Tensor total = at::zeros({}, hidden.options().dtype(at::kFloat));
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += pass.chunk) {
      const std::int64_t count = std::min(pass.chunk, hidden.size(0) - begin);
      variable_list inputs = {hidden.narrow(0, begin, count).detach().requires_grad_()};
      at::Tensor logits;
      {
        const c10::AutoGradMode recording(true);
        logits = pass.model->logits(inputs[0]);  // [m, V]
      }
      // The head is linear: its backward needs no logits, so their gradient may take their place.
      at::Tensor grad_logits = logits.detach();
      {
        at::Tensor wide = grad_logits.to(at::kFloat);
        total += cross_entropy_in_place(wide, pass.labels.narrow(0, begin, count));
        if (!wide.is_same(grad_logits)) grad_logits.copy_(wide);
      }
      std::vector<std::size_t> trained;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        if (!parameters[i].requires_grad()) continue;
        trained.push_back(i);
        inputs.push_back(parameters[i]);
      }
      const variable_list parts = torch::autograd::grad({logits}, inputs, {grad_logits});
      grad_hidden.narrow(0, begin, count).copy_(parts[0]);
      for (std::size_t i = 0; i < trained.size(); ++i) {
        at::Tensor& sum = grads[trained[i]];
        sum = sum.defined() ? sum.add_(parts[i + 1]) : parts[i + 1];
      }
    }
    context->saved_data["parameters"] = static_cast<std::int64_t>(parameters.size());
    grads.insert(grads.begin(), grad_hidden);
    context->save_for_backward(grads);
    return total;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list saved = context->get_saved_variables();
    for (at::Tensor& grad : saved) {
      if (grad.defined()) grad = grad * grads[0].to(grad.scalar_type());
    }
    saved.emplace_back();  // of the pass
    return saved;
  }
};

}  // namespace

std::int64_t head_bytes_per_label(std::int64_t vocab_size, at::ScalarType logits) {
  const auto bytes = static_cast<std::int64_t>(c10::elementSize(logits));
  return vocab_size * (logits == at::kFloat ? bytes : bytes + 4);
}

at::Tensor head_loss_sum(VisionLanguageModel& model, const at::Tensor& hidden,
                         const at::Tensor& labels, std::int64_t chunk) {
  if (c10::GradMode::is_enabled()) {
    const std::vector<at::Tensor> parameters = model.output_head().parameters();
    return HeadLoss::apply(hidden, at::TensorList(parameters),
                           HeadPass{.model = &model, .labels = labels, .chunk = chunk});
  }
  at::Tensor total = at::zeros({}, hidden.options().dtype(at::kFloat));
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += chunk) {
    const std::int64_t count = std::min(chunk, hidden.size(0) - begin);
    at::Tensor logits = model.logits(hidden.narrow(0, begin, count)).to(at::kFloat);
    total += cross_entropy_in_place(logits, labels.narrow(0, begin, count));
  }
  return total;
}

at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch, PictureStore* pictures) {
  return loss_sum(model, batch,
                  pictures ? pictures->features_of(model, batch) : encode_pictures(model, batch));
}

at::Tensor loss_sum(VisionLanguageModel& model, const data::Batch& batch,
                    const at::Tensor& features) {
  const at::Tensor embeddings = model.embed(batch.inputs.input_ids, features);
  const ModelInputs& inputs = batch.inputs;
  const at::Tensor hidden =
      batch.segments.empty()
          ? model.decode(embeddings, inputs.attention_mask, nullptr, inputs.positions)
          : model.decode_packed(embeddings, batch.segments, inputs.positions);
  // Found on the CPU, so that a GPU is not waited for.
  const at::Tensor labels = batch.labels.flatten();
  const at::Tensor places = labels.ne(data::kIgnoredLabel).nonzero().flatten();
  return head_loss_sum(model, hidden.flatten(0, 1).index_select(0, upload(places, hidden.device())),
                       upload(labels.index_select(0, places), hidden.device()));
}

}  // namespace vlm::train
