#include "vlm/models/interface/prompt_layout.h"

#include <ATen/ATen.h>

#include "tests/support/catch.h"
#include "vlm/models/interface/pixels.h"

namespace vlm {
namespace {

using Ids = std::vector<std::int64_t>;

at::Tensor rows_of(const std::vector<Ids>& rows) {  // [3, T]
  std::vector<at::Tensor> tensors;
  for (const Ids& row : rows) tensors.push_back(at::tensor(row, at::kLong));
  return at::stack(tensors);
}

TEST_CASE("media are found in a prompt by the ids that stand for them") {
  // Two media of two tokens, the second with a mark between them.
  const Ids ids = {1, 90, 90, 5, 91, 7, 90, 2};
  const auto spans = find_media(ids, {90, 91}, {2, 2});
  REQUIRE(spans.size() == 2);
  CHECK((spans[0].begin == 1 && spans[0].end == 3));
  CHECK((spans[1].begin == 4 && spans[1].end == 7));
  CHECK_THROWS_WITH(
      find_media(ids, {90, 91}, {2, 3}),
      "image tokens in the prompt don't fit the pictures: got 4 image tokens, wanted 5");
  CHECK_THROWS_WITH(
      find_media(ids, {90, 91}, {2}),
      "image tokens in the prompt don't fit the pictures: got 4 image tokens, wanted 2");
  CHECK_THROWS_WITH(
      find_media(ids, {}, {1}),
      "image tokens in the prompt don't fit the pictures: got 0 image tokens, wanted 1");
}

TEST_CASE("a layout knows its media, and what other prompts may share") {
  PromptLayout layout{.media = {{1, 3}, {4, 7}}};
  CHECK(layout.medium_at(0) == -1);
  CHECK(layout.medium_at(2) == 0);
  CHECK(layout.medium_at(3) == -1);
  CHECK(layout.medium_at(6) == 1);
  CHECK(layout.medium_at(7) == -1);
  CHECK_FALSE(layout.can_share(6));
  CHECK(layout.can_share(7));
  layout.can_share_prefix = false;
  CHECK_FALSE(layout.can_share(7));
  CHECK(PromptLayout{}.can_share(0));
}

TEST_CASE("positions of a layout go on behind the prompt, and behind a cut") {
  // One token of text, a picture of 1 × 2 × 2, two tokens of text.
  PromptLayout layout{.media = {{1, 5}},
                      .positions = rows_of({{0, 1, 1, 1, 1, 3, 4},  //
                                            {0, 1, 1, 2, 2, 3, 4},  //
                                            {0, 1, 2, 1, 2, 3, 4}}),
                      .next_position = 5};
  CHECK(layout.position_of(7, 7) == 5);
  CHECK(layout.position_of(6, 7) == 4);
  CHECK(PromptLayout{}.position_of(6, 7) == 6);
  layout.cut(6);
  CHECK(layout.next_position == 4);
  CHECK(layout.positions.sizes() == at::IntArrayRef({3, 6}));

  const at::Tensor stacked = stack_positions({{{}, 8}, {layout.positions, 6}});
  CHECK(stacked.select(1, 0).equal(at::arange(8).expand({3, 8})));
  CHECK(stacked.select(1, 1).narrow(1, 0, 6).equal(layout.positions));
  CHECK(stacked.select(1, 1).narrow(1, 6, 2).eq(0).all().item<bool>());
  CHECK_FALSE(stack_positions({{{}, 8}, {{}, 6}}).defined());
}

TEST_CASE("pixels of several media are joined, counted and told apart") {
  const Pixels one{.values = at::ones({2, 5}), .tokens = 3, .grids = {{1, 1, 2}}};
  const Pixels two{.values = at::zeros({4, 5}), .tokens = 1, .grids = {{1, 2, 2}}};
  const Pixels both = join_pixels({one, {}, two});
  CHECK(both.values.equal(at::cat({one.values, two.values})));
  CHECK(both.units() == 6);
  CHECK(both.tokens == 4);
  CHECK(both.bytes() == 6 * 5 * 4);
  CHECK((both.grids == std::vector<PatchGrid>{{1, 1, 2}, {1, 2, 2}}));
  CHECK(join_pixels({}).empty());
  Pixels turned = two;
  turned.grids = {{1, 1, 4}};
  CHECK(turned.digest() != two.digest());
  CHECK(two.digest() == Pixels(two).digest());
}

}  // namespace
}  // namespace vlm
