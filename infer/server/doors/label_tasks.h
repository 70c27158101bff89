// Tasks of Label Studio → chat requests, and their replies → predictions.
//
//   config, task, control ─► to_chat_body ─► (a chat completion) ─► read_label ─► Label
//   labels of a task ─► to_prediction ─► {"model_version", "score", "result": [...]}
//
// A choice is scored exactly, and its probability is the score; a text's is the mean probability of
// its tokens. A prediction's score is the least of its labels'.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "infer/server/doors/label_config.h"
#include "infer/server/doors/label_files.h"
#include "infer/server/http/http_message.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// The body of POST /predict.
struct PredictRequest {
  LabelConfig config;
  std::vector<OrderedJson> tasks;
};

// Throws ApiError naming the field.
PredictRequest read_predict_request(const OrderedJson& body);

// One control's question about one task.
struct LabelQuestion {
  OrderedJson body;                  // of a chat completion
  std::vector<LabelChoice> choices;  // of Choices
};

// `place` is the task's in the request, for errors. `files` has what paths ("/data/…") name; null:
// there is no instance to ask. Throws ApiError for data that isn't there or can't be used.
LabelQuestion make_label_question(const LabelConfig& config, const LabelControl& control,
                                  const OrderedJson& task, const std::string& place,
                                  const LabelFiles* files);

// What a control got: a region of the result, or why there is none.
struct Label {
  std::optional<OrderedJson> region;
  double score = 0;
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
  std::string error = {};
};

Label read_label(const LabelControl& control, const std::vector<LabelChoice>& choices,
                 const WebReply& reply);

OrderedJson to_prediction(const std::vector<Label>& labels, const std::string& model_version);

}  // namespace vlm::infer
