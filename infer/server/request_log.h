// What is kept of a request: its line in the log, and its share of the metrics.
#pragma once

#include <cstdint>
#include <string>

#include "infer/server/http/http_handler.h"
#include "infer/server/metrics.h"

namespace vlm::infer {

// Set by the thread that writes answers, and read there.
struct RequestFacts {
  std::string model;
  bool was_submitted = false;  // to the model
  std::int64_t prompt_tokens = 0, image_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  std::int64_t pictures = 0, clips = 0;
  double media_s = 0, queue_s = 0, vision_s = 0, prefill_s = 0, decode_s = 0;
  double first_piece_s = 0;  // since the request was there; 0: there was none
  std::string finish;        // "stop", "length" or "error"; empty: it was no answer
};

enum class LogFormat { kText, kJson };

// One line: when, id, path, status, and what is known of the answer. Never prompts or pictures.
std::string log_line(const ExchangeEnd& end, LogFormat format);

// Counts the request; `path` is a route's, or "other".
void count_request(const ExchangeEnd& end, const std::string& path, Metrics& metrics);

}  // namespace vlm::infer
