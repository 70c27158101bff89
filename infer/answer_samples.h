// Samples' questions → greedy answers, by a model that is in memory: what `vlm finetune` evaluates
// with. main.cpp binds it to the trainer, which includes no infer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "data/conversations/sample.h"
#include "data/media/video_clip.h"
#include "vlm/core/error.h"
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

namespace vlm::infer {

struct AnswerSamplesOptions {
  std::filesystem::path folder;  // of the checkpoint: its generation settings
  std::int64_t max_new_tokens = 64;
  data::VideoSampling video = {};
};

// One a sample, which ends with its question: the answer without surrounding white space, or why
// that sample has none. All are decoded together. Sampling and beams of the checkpoint's settings
// are off. The model is in evaluation mode. Throws Interrupted when told to stop.
std::vector<std::variant<std::string, Error>> answer_samples(
    const ModelPtr& model, const std::shared_ptr<const Processor>& processor,
    const std::vector<data::Sample>& samples, const AnswerSamplesOptions& options);

}  // namespace vlm::infer
