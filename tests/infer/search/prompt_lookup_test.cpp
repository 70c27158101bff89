#include "infer/search/prompt_lookup.h"

#include "tests/support/catch.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

TEST_CASE("prompt lookup: what followed the last tokens, the longest run and the latest place") {
  const PromptLookup lookup;
  CHECK(lookup.guess(Ids{5, 6, 7, 8, 9, 5, 6, 7}, 4) == Ids{8, 9, 5, 6});
  CHECK(lookup.guess(Ids{5, 6, 7, 8, 9, 5, 6, 7}, 1) == Ids{8});
  // Three tokens before two, though the two stand later.
  CHECK(lookup.guess(Ids{1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, 2) == Ids{4, 9});
  CHECK(lookup.guess(Ids{1, 2, 3, 1, 2, 4, 8, 1, 2}, 2) == Ids{4, 8});
  CHECK(lookup.guess(Ids{7, 7, 7, 7}, 3) == Ids{7});
  // One token is too little, and nothing stands before.
  CHECK(lookup.guess(Ids{4, 1, 9, 4}, 3).empty());
  CHECK(lookup.guess(Ids{1, 2, 3}, 3).empty());
  CHECK(lookup.guess(Ids{1}, 3).empty());
  CHECK(lookup.guess(Ids{}, 3).empty());
}

TEST_CASE("prompt lookup: earlier answers, never across their ends") {
  PromptLookup lookup;
  lookup.remember(Ids{10, 11, 12, 13});
  lookup.remember(Ids{20, 21, 22});
  CHECK(lookup.guess(Ids{1, 10, 11}, 5) == Ids{12, 13});
  CHECK(lookup.guess(Ids{1, 12, 13}, 5).empty());
  CHECK(lookup.guess(Ids{13, 20}, 5).empty());
  // The sequence itself goes first.
  CHECK(lookup.guess(Ids{10, 11, 7, 7, 10, 11}, 2) == Ids{7, 7});
  lookup.remember(Ids{10, 11, 14});
  CHECK(lookup.guess(Ids{1, 10, 11}, 5) == Ids{14});
  for (int i = 0; i < 20000; ++i) lookup.remember(Ids{30, 31, 32});
  CHECK(lookup.guess(Ids{1, 10, 11}, 5).empty());
  CHECK(lookup.guess(Ids{30, 31}, 5) == Ids{32});
}

}  // namespace
}  // namespace vlm::infer
