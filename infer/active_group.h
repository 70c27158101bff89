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

#include "infer/kept/kept_prefixes.h"
#include "infer/request.h"

namespace vlm::infer {

struct ActiveGroup;

using Moment = std::chrono::steady_clock::time_point;

// A request that is being decoded, in some rows of its group.
struct ActiveRequest {
  Request request;
  ActiveGroup* group = nullptr;
  std::int64_t media_tokens = 0;     // of the prompt
  std::vector<std::int64_t> suffix;  // the prompt's ids after the group's prefix
  std::unique_ptr<Search> search;    // null: choices are scored
  std::int64_t offset = 0;           // its first row in the group
  std::int64_t width = 0;            // rows that it may use
  bool is_started = false;           // the suffix is in the cache
  std::vector<std::int64_t> next;    // token of each row to decode
  std::vector<ChoiceScore> scores;
  bool is_finished = false;
  Moment begun = {};        // when it went into the model
  Moment first_token = {};  // when it had its first token

  // True when the answer has taken longer than the request's time limit.
  bool is_late() const;
};

struct ActiveGroup {
  // Groups of the cache that it has. More than one where these have fewer rows than it needs: then
  // each holds the prefix.
  std::vector<std::int64_t> places;
  std::vector<std::int64_t> prefix;
  std::int64_t prefilled = 0;      // tokens of the prefix that are in the cache
  std::int64_t cached = 0;         // of these, those that an earlier request left
  at::Tensor positions;            // [3, prefix] of its tokens; undefined: counted
  std::int64_t next_position = 0;  // of the token behind it
  std::shared_ptr<PictureFeatures> pictures;
  std::deque<ActiveRequest> pending;
  std::vector<std::unique_ptr<ActiveRequest>> requests;  // at work
  bool has_whole_prompt = false;                         // the prefix is the one request's prompt
  bool can_share = false;    // other prompts that begin alike may use what was computed of it
  PrefixSource source = {};  // in serving, of the prefix
  // When it was submitted, got its places, was first worked on, and had its pictures' features.
  Moment submitted = {}, entered = {}, begun = {}, encoded = {};

  // Rows for decoding its requests at the same time, up to a bound.
  std::int64_t rows_needed() const;
  // The most tokens that a row may hold behind the prefix.
  std::int64_t tail_needed() const;
  // It got its places.
  void enter();
  bool is_empty() const { return pending.empty() && requests.empty(); }
};

// Groups in which every request is pending; their searches are not made yet. At most so many
// choices of a request are scored at a time.
std::vector<std::unique_ptr<ActiveGroup>> make_groups(RequestGroup group,
                                                      std::int64_t most_choice_rows);

// The same where rows hold the prefix once for all, and where each holds it anew.
inline constexpr std::int64_t kMostChoiceRows = 16, kMostSpreadChoiceRows = 4;

}  // namespace vlm::infer
