// How the trainer asks a model to answer, without knowing who generates.
//
// main.cpp binds inference to it (infer/answer_samples.h): train never includes infer.
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
#include "vlm/models/model.h"
#include "vlm/models/processor.h"

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

// One a prompt: the greedy answer without surrounding white space, or why that sample has none.
// Throws Interrupted when told to stop.
using AnswerFunction =
    std::function<std::vector<std::variant<std::string, Error>>(const AnswerRequest&)>;

}  // namespace vlm::train
