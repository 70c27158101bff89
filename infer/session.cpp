#include "infer/session.h"

#include <chrono>
#include <future>

#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::infer {

Session open_session(const ModelChoice& choice, const RuntimeOptions& runtime,
                     const Session* beside) {
  const auto start = std::chrono::steady_clock::now();
  const at::Device device = prepare_runtime(runtime);
  const auto folder = find_model_folder(choice.model, choice.mmproj);
  // A vocabulary takes as long to read as the weights of a small model to map. Where the system has
  // no thread left it is read later.
  auto processor = std::async([&]() -> std::shared_ptr<const Processor> {
    if (beside != nullptr) return beside->processor;
    return load_processor(folder, choice.chat);
  });
  const bool is_merged = !choice.adapter.empty();
  const bool is_quantized = is_quantizing(runtime.dtype);
  // An adapter is added to weights as wide as they are multiplied, or before they are quantized.
  LoadOptions options{.dtype = is_merged && is_quantized ? "bfloat16" : runtime.dtype,
                      .device = device};
  options.mixed_precision = !is_merged || compute_dtype(folder, options) == at::kBFloat16;
  options.keeps_codes = !is_merged;
  ModelPtr model = load_model(folder, options);
  if (is_merged) {
    load_adapter(model->module(), choice.adapter);
    merge_lora(model->module());
    if (is_quantized) store_weights(*model, runtime.dtype);
  }
  Session session{.model = model, .generation = load_generation_options(folder)};
  session.processor = processor.get();
  session.generator = std::make_unique<Generator>(model, session.processor);
  session.rules = beside != nullptr
                      ? beside->rules
                      : std::make_shared<RuleCompiler>(std::shared_ptr<const Tokenizer>(
                            session.processor, &session.processor->tokenizer()));
  session.generator->set_kv_storage(choose_kv_storage(choice.kv_dtype, *model));
  if (choice.records_steps) session.generator->record_steps();
  session.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return session;
}

}  // namespace vlm::infer
