// Greedy answers of a loaded model to the questions of samples: `vlm finetune` evaluates with it.
// main.cpp passes it to the trainer, which doesn't include infer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "data/conversations/sample.h"
#include "data/media/video_clip.h"
#include "vlm/core/error.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"

namespace vlm::infer {

struct AnswerSamplesOptions {
  std::filesystem::path folder;  // of the checkpoint: its generation settings
  std::int64_t max_new_tokens = 64;
  data::VideoSampling video = {};
  std::function<bool()> should_stop = {};  // asked between samples and tokens
};

// Each sample ends with its question. Returns for each the answer without surrounding white space,
// or the Error why there is none. All are decoded together, greedily, whatever the checkpoint's
// generation settings say. The model is in evaluation mode. Throws Interrupted when it is to stop.
std::vector<std::variant<std::string, Error>> answer_samples(
    const ModelPtr& model, const std::shared_ptr<const Processor>& processor,
    const std::vector<data::Sample>& samples, const AnswerSamplesOptions& options);

}  // namespace vlm::infer
