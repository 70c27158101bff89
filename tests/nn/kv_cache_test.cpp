#include "vlm/nn/kv_cache.h"

#include "tests/support/tensors.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/attention.h"
#include "vlm/nn/cpu/kv_rows.h"
#include "vlm/nn/layers.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

constexpr std::int64_t kHeads = 4, kKvHeads = 2;
// Of a head: one that CPUs have a kernel for, and one that they don't.
constexpr std::int64_t kWide = 16, kNarrow = 3;

// Queries, keys and values of one sequence, [1, heads, T, D].
struct Sequence {
  at::Tensor q, k, v;

  Sequence(std::int64_t tokens, std::int64_t width)
      : q(at::rand({1, kHeads, tokens, width})),
        k(at::rand({1, kKvHeads, tokens, width})),
        v(at::rand({1, kKvHeads, tokens, width})) {}

  Sequence cut(std::int64_t begin, std::int64_t count) const {
    Sequence part = *this;
    for (at::Tensor* t : {&part.q, &part.k, &part.v}) *t = t->narrow(2, begin, count);
    return part;
  }
  static Sequence join(const Sequence& a, const Sequence& b) {
    Sequence whole = a;
    whole.q = at::cat({a.q, b.q}, 2);
    whole.k = at::cat({a.k, b.k}, 2);
    whole.v = at::cat({a.v, b.v}, 2);
    return whole;
  }
  // With keys and values as a cache holds them.
  Sequence held(at::ScalarType type) const {
    Sequence part = *this;
    for (at::Tensor* t : {&part.k, &part.v}) *t = decode_rows(encode_rows(*t, type), t->size(3));
    return part;
  }
  // Causal attention over all of it. [1, H, T, D]
  at::Tensor attended() const { return grouped_attention(q, k, v, {}, q.size(2) > 1); }
};

// Sequences as one pass, padded on the right with garbage.
struct PaddedPass {
  at::Tensor q, k, v;
  std::vector<std::int64_t> counts;

  explicit PaddedPass(const std::vector<Sequence>& sequences) {
    std::int64_t longest = 0;
    for (const Sequence& one : sequences) {
      counts.push_back(one.q.size(2));
      longest = std::max(longest, counts.back());
    }
    const auto rows = static_cast<std::int64_t>(sequences.size());
    const std::int64_t width = sequences[0].q.size(3);
    q = at::full({rows, kHeads, longest, width}, 9.0);
    k = at::full({rows, kKvHeads, longest, width}, 9.0);
    v = at::full({rows, kKvHeads, longest, width}, 9.0);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      q[row].narrow(1, 0, counts[i]).copy_(sequences[i].q[0]);
      k[row].narrow(1, 0, counts[i]).copy_(sequences[i].k[0]);
      v[row].narrow(1, 0, counts[i]).copy_(sequences[i].v[0]);
    }
  }
};

at::Tensor run_pass(KvCache& cache, const PaddedPass& pass) {
  const at::Tensor out = cache.attend(0, pass.q, pass.k, pass.v);
  cache.end_pass();
  return out;
}

TEST_CASE("rows that share a prefix attend as whole sequences would") {
  const std::int64_t width = GENERATE(kWide, kNarrow);
  const auto [storage, type] = GENERATE(std::pair(KvStorage::kComputed, at::kFloat),
                                        std::pair(KvStorage::kBfloat16, at::kBFloat16),
                                        std::pair(KvStorage::kInt8, at::kChar));
  at::manual_seed(1);
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = width}, 2, at::kFloat, storage);
  const std::vector<Sequence> prompts = {Sequence(5, width), Sequence(1, width),
                                         Sequence(9, width)};
  const PaddedPass prefill(prompts);
  cache.begin_prefill({0, 1, 2}, prefill.counts);
  const at::Tensor first = run_pass(cache, prefill);
  for (std::int64_t g = 0; g < 3; ++g) {
    const std::int64_t length = prefill.counts[static_cast<std::size_t>(g)];
    check_close(first[g].narrow(1, 0, length),
                prompts[static_cast<std::size_t>(g)].held(type).attended()[0]);
  }

  // Rows 0, 1 of group 0 and row 5 of group 2 go on, by several tokens and then one by one.
  const std::vector<std::int64_t> rows = {0, 1, 5};
  std::vector<Sequence> whole = {prompts[0], prompts[0], prompts[2]};
  for (const std::vector<std::int64_t>& counts :
       {std::vector<std::int64_t>{3, 1, 2}, {1, 1, 1}, {1, 1, 1}, {4, 2, 40}}) {
    std::vector<Sequence> more;
    for (const std::int64_t count : counts) more.emplace_back(count, width);
    const PaddedPass pass(more);
    cache.begin_extend(rows, counts);
    const at::Tensor out = run_pass(cache, pass);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      whole[i] = Sequence::join(whole[i], more[i]);
      const std::int64_t length = whole[i].q.size(2);
      check_close(out[static_cast<std::int64_t>(i)].narrow(1, 0, counts[i]),
                  whole[i].held(type).attended()[0].narrow(1, length - counts[i], counts[i]));
    }
  }
  CHECK(cache.prefix_length(2) == 9);
  CHECK(cache.tail_length(5) == 44);
}

TEST_CASE("bytes of a token in a cache") {
  const KvCacheShape shape{.layers = 3, .kv_heads = 5, .head_dim = 64};
  CHECK(kv_token_bytes(shape, at::kFloat) == 2 * 3 * 5 * 64 * 4);
  CHECK(kv_token_bytes(shape, at::kBFloat16) == 2 * 3 * 5 * 64 * 2);
  CHECK(kv_token_bytes(shape, at::kChar) == 2 * 3 * 5 * 68);
}

TEST_CASE("fewer bits are for float32 on a CPU") {
  const KvCacheShape shape{.layers = 1, .kv_heads = 1, .head_dim = 16};
  CHECK_THROWS_WITH(KvCache(shape, 1, at::kBFloat16, KvStorage::kInt8),
                    Contains("KvCache: keys of"));
}

TEST_CASE("positions count the real tokens before each one") {
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = kWide}, 1, at::kFloat);
  const PaddedPass prefill({Sequence(4, kWide), Sequence(2, kWide)});
  cache.begin_prefill({0, 1}, prefill.counts);
  CHECK(cache.positions().equal(at::arange(4).unsqueeze(0)));
  run_pass(cache, prefill);
  cache.begin_extend({0, 1}, {2, 1});
  CHECK(cache.positions().equal(at::tensor({4, 5, 2, 3}, at::kLong).view({2, 2})));
}

TEST_CASE("given positions are counted on behind the prompt, and move with their group") {
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = kWide}, 2, at::kFloat);
  const PaddedPass prefill({Sequence(4, kWide), Sequence(3, kWide)});
  // Time, row and column; the second prompt is text.
  const at::Tensor given = at::tensor(std::vector<std::int64_t>{0, 1, 1, 1, 0, 1, 2, 0,  //
                                                                0, 1, 1, 2, 0, 1, 2, 0,  //
                                                                0, 1, 2, 1, 0, 1, 2, 0},
                                      at::kLong)
                               .view({3, 2, 4});
  cache.begin_prefill({0, 1}, prefill.counts, {.positions = given, .next = {3, 3}});
  CHECK(cache.positions().equal(given));
  run_pass(cache, prefill);
  const auto extend = [&](const std::vector<std::int64_t>& rows) {
    std::vector<Sequence> more;
    for (std::size_t i = 0; i < rows.size(); ++i) more.emplace_back(2, kWide);
    const PaddedPass pass(more);
    cache.begin_extend(rows, pass.counts);
    const at::Tensor positions = cache.positions();
    run_pass(cache, pass);
    return positions;
  };
  const auto pair = [](std::int64_t first) {
    return at::tensor(std::vector<std::int64_t>{first, first + 1}, at::kLong);
  };
  CHECK(extend({0, 1, 2}).equal(at::stack({pair(3), pair(3), pair(3)})));
  CHECK(extend({1, 2}).equal(at::stack({pair(5), pair(5)})));
  cache.copy_tails({1, 1}, {0, 1});
  CHECK(extend({0}).equal(at::stack({pair(7)})));

  cache.begin_prefill({1}, {1}, {.next = {9}});  // a shorter prompt, whose positions go on at 9
  run_pass(cache, PaddedPass({Sequence(1, kWide)}));
  cache.move_group(1, 0);
  CHECK(extend({0}).equal(at::stack({pair(9)})));
}

TEST_CASE("a tail that was cut goes on as if the rest had never been") {
  const std::int64_t width = GENERATE(kWide, kNarrow);
  at::manual_seed(5);
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = width}, 1, at::kFloat);
  const Sequence prompt(4, width), more(5, width), other(3, width);
  cache.begin_prefill({0}, {4});
  run_pass(cache, PaddedPass({prompt}));
  cache.begin_extend({0}, {5});
  run_pass(cache, PaddedPass({more}));
  cache.cut_tail(0, 7);  // longer than it is
  CHECK(cache.tail_length(0) == 5);
  cache.cut_tail(0, 2);
  CHECK(cache.tail_length(0) == 2);
  cache.begin_extend({0}, {3});
  const at::Tensor out = run_pass(cache, PaddedPass({other}));
  const Sequence whole = Sequence::join(Sequence::join(prompt, more.cut(0, 2)), other);
  check_close(out[0], whole.attended()[0].narrow(1, 6, 3));
}

TEST_CASE("tails follow their beams, and groups may move") {
  const std::int64_t width = GENERATE(kWide, kNarrow);
  at::manual_seed(2);
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = width}, 3, at::kFloat);
  const std::vector<Sequence> prompts = {Sequence(3, width), Sequence(6, width)};
  const PaddedPass prefill(prompts);
  cache.begin_prefill({0, 1}, prefill.counts);
  run_pass(cache, prefill);
  std::vector<Sequence> tails = {Sequence(2, width), Sequence(2, width), Sequence(2, width)};
  cache.begin_extend({3, 4, 5}, {2, 2, 2});
  run_pass(cache, PaddedPass(tails));
  cache.copy_tails({5, 3, 3}, {3, 4, 5});
  cache.move_group(1, 0);
  tails = {tails[2], tails[0], tails[0]};
  const std::vector<Sequence> next = {Sequence(1, width), Sequence(1, width), Sequence(1, width)};
  cache.begin_extend({0, 1, 2}, {1, 1, 1});
  const at::Tensor out = run_pass(cache, PaddedPass(next));
  for (std::size_t i = 0; i < 3; ++i) {
    const auto whole = Sequence::join(Sequence::join(prompts[1], tails[i]), next[i]);
    check_close(out[static_cast<std::int64_t>(i)], whole.attended()[0].narrow(1, 8, 1));
  }
}

TEST_CASE("checkpointed activations give the same gradients, dropout included") {
  const auto module = std::make_shared<Linear>(5, 5, true);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  const auto block = [&](const at::Tensor& x) {
    return at::dropout(linear.forward(x).tanh(), 0.4, true);
  };
  const at::Tensor input = at::rand({7, 5});
  at::Tensor gradients[2], outputs[2], input_gradients[2];
  for (const int run : {0, 1}) {
    at::manual_seed(9);
    linear.zero_grad();
    at::Tensor x = input.clone().requires_grad_();
    outputs[run] = run == 0 ? block(x) : checkpoint_activations(linear, block, x);
    outputs[run].square().sum().backward();
    gradients[run] = linear.weight.grad().clone();
    input_gradients[run] = x.grad();
  }
  CHECK(outputs[0].equal(outputs[1]));
  CHECK(gradients[0].equal(gradients[1]));
  CHECK(input_gradients[0].equal(input_gradients[1]));
}

TEST_CASE("a checkpointed block trains its parameters when its input needs no gradient") {
  const auto module = std::make_shared<Linear>(3, 3, false);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  checkpoint_activations(
      linear, [&](const at::Tensor& x) { return linear.forward(x); }, at::ones({2, 3}))
      .sum()
      .backward();
  CHECK(linear.weight.grad().eq(2).all().item<bool>());
}

TEST_CASE("dropout acts in front of A, in training only") {
  const auto module = std::make_shared<Linear>(64, 8, false);
  Linear& linear = *module;
  initialize_weights(linear, 0.3, at::detail::createCPUGenerator(1));
  linear.set_lora(
      std::make_shared<LoraBranch>(linear, BranchOptions{.r = 2, .scaling = 1.0, .dropout = 0.5}));
  initialize_weights(*linear.lora()->a(), 0.3, at::detail::createCPUGenerator(2));
  initialize_weights(*linear.lora()->b(), 0.3, at::detail::createCPUGenerator(3));
  const at::Tensor x = at::rand({4, 64});
  linear.eval();
  const at::Tensor calm = linear.forward(x);
  CHECK(calm.equal(linear.forward(x)));
  linear.train();
  CHECK_FALSE(calm.equal(linear.forward(x)));
  at::manual_seed(4);
  const at::Tensor dropped = at::dropout(x, 0.5, true);
  at::manual_seed(4);
  const at::Tensor expected = at::linear(x, linear.weight) +
                              linear.lora()->b()->forward(linear.lora()->a()->forward(dropped));
  check_close(linear.forward(x), expected, 1e-6);
}

TEST_CASE("a prompt that comes in pieces is the same as one that comes whole") {
  const std::int64_t width = GENERATE(kWide, kNarrow);
  at::manual_seed(5);
  const KvCacheShape shape{.layers = 1, .kv_heads = kKvHeads, .head_dim = width};
  KvCache cache(shape, 1, at::kFloat);
  const Sequence whole(11, width), other(3, width), more(2, width);
  const PaddedPass beside({other});
  cache.begin_prefill({0}, beside.counts);
  run_pass(cache, beside);
  std::vector<at::Tensor> pieces;
  for (const auto& [begin, count] : {std::pair{0, 4}, {4, 1}, {5, 6}}) {
    cache.begin_piece({.group = 1, .begin = begin, .count = count, .whole = 11});
    CHECK(cache.positions().equal(at::arange(begin, begin + count).unsqueeze(0)));
    CHECK(cache.prompt_lengths() == std::vector<std::int64_t>{11});
    pieces.push_back(run_pass(cache, PaddedPass({whole.cut(begin, count)})));
    CHECK(cache.prefix_length(1) == begin + count);
  }
  check_close(at::cat(pieces, 2), whole.attended());
  CHECK(cache.prefix_length(0) == 3);
  const std::int64_t bytes = cache.bytes();
  CHECK(bytes == cache.bytes_of(2, cache.prefix_capacity(), cache.tail_capacity()));
  CHECK(cache.bytes_of(1, 1, 0) == 2 * kKvHeads * width * 4);

  // Goes on from there, from a copy of the prefix, and from its beginning out of the cache.
  const Sequence joined = Sequence::join(whole, more);
  const auto go_on = [&](std::int64_t row) {
    cache.begin_extend({row}, {2});
    return run_pass(cache, PaddedPass({more}));
  };
  const at::Tensor wanted = joined.attended().narrow(2, 11, 2);
  cache.copy_prefix(1, {2, 4});
  for (const std::int64_t row : {1, 2, 4}) check_close(go_on(row), wanted);
  const KvPrefix of_tail = cache.take_out(4, 13), of_prefix = cache.take_out(1, 6);
  CHECK(of_tail.tokens == 13);
  CHECK(of_prefix.bytes() == 2 * kKvHeads * width * 6 * 4);
  cache.put_in(3, of_prefix, 5, 5);
  CHECK(cache.prefix_length(3) == 5);
  cache.begin_piece({.group = 3, .begin = 5, .count = 6, .whole = 11});
  check_close(run_pass(cache, PaddedPass({whole.cut(5, 6)})), whole.attended().narrow(2, 5, 6));
  check_close(go_on(3), wanted);
  cache.put_in(0, of_tail, 11, 11);
  check_close(go_on(0), wanted);
}

TEST_CASE("tails grow in advance as far as they may") {
  KvCache cache({.layers = 1, .kv_heads = kKvHeads, .head_dim = kWide}, 1, at::kFloat);
  cache.bound_tails(20);
  cache.reserve(1, 4, 5);
  CHECK(cache.tail_capacity() == 20);
  cache.reserve(1, 4, 21);
  CHECK(cache.tail_capacity() == 21);
  cache.bound_tails(0);
  cache.reserve(1, 4, 22);
  CHECK(cache.tail_capacity() == 42);
}

}  // namespace
}  // namespace vlm
