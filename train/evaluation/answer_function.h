// The function with which the trainer gets answers of a model.
//
// main.cpp sets it to infer/answer_samples.h, so that train doesn't include infer.
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

namespace vlm::train {

struct AnswerRequest {
  ModelPtr model;  // in evaluation mode, with its adapters
  std::shared_ptr<const Processor> processor;
  std::filesystem::path folder;       // of the base: its generation settings
  std::vector<data::Sample> prompts;  // conversations that end with the question; few enough to be
                                      // answered together
  std::int64_t max_new_tokens = 64;
  data::VideoSampling video = {};
};

// For each prompt the greedy answer without surrounding white space, or the Error why there is
// none. Throws Interrupted when told to stop.
using AnswerFunction =
    std::function<std::vector<std::variant<std::string, Error>>(const AnswerRequest&)>;

}  // namespace vlm::train
