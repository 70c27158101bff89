// Groups of requests that share the beginning of their prompts, while the generator works on them.
//
//   RequestGroup ─► make_groups ─► ActiveGroup: the shared prefix, and the suffix of each request
//
// Requests about the same pictures form one group if all pictures lie in the part that their
// prompts share and their layouts allow it, else a group each.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "infer/request.h"

namespace vlm::infer {

struct ActiveGroup;

// A request that is being decoded, in some rows of its group.
struct ActiveRequest {
  Request request;
  ActiveGroup* group = nullptr;
  std::vector<std::int64_t> suffix;  // the prompt's ids after the group's prefix
  std::unique_ptr<Search> search;    // null: choices are scored
  std::int64_t offset = 0;           // its first row in the group
  std::int64_t width = 0;            // rows that it may use
  bool is_started = false;           // the suffix is in the cache
  std::vector<std::int64_t> next;    // token of each row to decode
  std::vector<ChoiceScore> scores;
  bool is_finished = false;
  std::chrono::steady_clock::time_point begun = {};  // when it went into the model

  // True when the answer has taken longer than the request's time limit.
  bool is_late() const;
};

struct ActiveGroup {
  std::int64_t index = 0;  // of the cache
  std::vector<std::int64_t> prefix;
  at::Tensor positions;            // [3, prefix] of its tokens; undefined: counted
  std::int64_t next_position = 0;  // of the token behind it
  std::shared_ptr<PictureFeatures> pictures;
  std::deque<ActiveRequest> pending;
  std::vector<std::unique_ptr<ActiveRequest>> requests;  // at work
  bool has_whole_prompt = false;                         // the prefix is the one request's prompt

  // Rows for decoding its requests at the same time, up to a bound.
  std::int64_t rows_needed() const;
};

// Groups in which every request is pending; their searches are not made yet.
std::vector<std::unique_ptr<ActiveGroup>> make_groups(RequestGroup group);

}  // namespace vlm::infer
