// Requests that share the beginning of their prompts, on their way through the generator.
//
//   RequestGroup ─► make_groups ─► ActiveGroup: a prefix for the cache, and what each request adds
//
// Requests about the same pictures are one group when the pictures lie in what their prompts share,
// else a group each.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "infer/request.h"

namespace vlm::infer {

struct ActiveGroup;

// A request at work: some rows of its group.
struct ActiveRequest {
  Request request;
  ActiveGroup* group = nullptr;
  std::vector<std::int64_t> suffix;  // of the prompt, behind the group's prefix
  std::unique_ptr<Search> search;    // null: choices are scored
  std::int64_t offset = 0;           // its first row in the group
  std::int64_t width = 0;            // rows that it may use
  bool is_started = false;           // the suffix is in the cache
  std::vector<std::int64_t> next;    // token of each row to decode
  std::vector<ChoiceScore> scores;
  bool is_finished = false;
  std::chrono::steady_clock::time_point begun = {};  // when it went into the model

  // An answer's time is over.
  bool is_late() const;
};

struct ActiveGroup {
  std::int64_t index = 0;  // of the cache
  std::vector<std::int64_t> prefix;
  std::shared_ptr<PictureFeatures> pictures;
  std::deque<ActiveRequest> pending;
  std::vector<std::unique_ptr<ActiveRequest>> requests;  // at work
  bool has_whole_prompt = false;                         // the prefix is the one request's prompt

  // Rows that let its requests, up to a bound, work at the same time.
  std::int64_t rows_needed() const;
};

// Groups with every request pending; searches are not made yet.
std::vector<std::unique_ptr<ActiveGroup>> make_groups(RequestGroup group,
                                                      std::int64_t image_token_id);

}  // namespace vlm::infer
