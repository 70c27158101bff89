// Logits processors and searches against transformers', and on toy tables of five words.
#include "infer/search/search.h"

#include <nlohmann/json.hpp>

#include "infer/search/logits_processor.h"
#include "infer/search/random.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

GenerationOptions read_options(const Json& json) {
  GenerationOptions options;
  options.eos_token_ids = json.value("eos_token_id", Ids{});
  options.repetition_penalty = json.value("repetition_penalty", 1.0);
  options.no_repeat_ngram_size = json.value("no_repeat_ngram_size", 0);
  options.min_new_tokens = json.value("min_new_tokens", 0);
  options.bad_words_ids = json.value("bad_words_ids", std::vector<Ids>{});
  options.do_sample = json.value("do_sample", false);
  options.temperature = json.value("temperature", 1.0);
  options.top_k = json.value("top_k", 50);
  options.top_p = json.value("top_p", 1.0);
  if (json.contains("min_p")) options.min_p = json["min_p"].get<double>();
  options.typical_p = json.value("typical_p", 1.0);
  options.num_beams = json.value("num_beams", 1);
  return options;
}

TEST_CASE("scores are penalized, banned and filtered as transformers does") {
  const Golden golden("decoding/processors.safetensors");
  const Json records = load_json(fixture("decoding/processors.json"));
  REQUIRE(records.size() > 100);
  for (std::size_t i = 0; i < records.size(); ++i) {
    INFO(records[i].dump());
    const std::string name = std::to_string(i);
    const at::Tensor ids = golden[name + ".sequences"];
    std::vector<Ids> sequences;
    for (std::int64_t r = 0; r < ids.size(0); ++r) {
      const auto* row = ids.const_data_ptr<std::int64_t>() + r * ids.size(1);
      sequences.emplace_back(row, row + ids.size(1));
    }
    const at::Tensor got = process_logits(golden[name + ".scores"], sequences,
                                          records[i]["prompt_tokens"], read_options(records[i]))
                               .clamp_min(-1e30);
    const at::Tensor wanted = golden[name + ".processed"];
    CHECK(got.lt(-1e29).equal(wanted.lt(-1e29)));  // the same tokens are out
    check_close(got.clamp_min(-1e3), wanted.clamp_min(-1e3));
  }
}

TEST_CASE("a bad word outside the vocabulary is refused") {
  GenerationOptions options;
  options.bad_words_ids = {{99}};
  CHECK_THROWS_WITH(process_logits(at::zeros({1, 5}), {{1, 2}}, 2, options),
                    "bad_words_ids has an id outside the vocabulary: got 99, wanted 0 to 4");
}

// Logits of a bigram table: row i of the table for each row whose last token is i.
class Table {
 public:
  explicit Table(const at::Tensor& probabilities) : logits_(probabilities.log()) {}

  // Runs a search from the token `start`, and returns its hypotheses.
  std::vector<Hypothesis> run(GenerationOptions options, std::int64_t start,
                              std::uint64_t stream = 0) const {
    const auto search = make_search({.options = options, .prompt = {start}, .stream = stream});
    Ids last = {start};
    while (search->rows() > 0) {
      REQUIRE(search->rows() == static_cast<std::int64_t>(last.size()));
      last = search->advance(logits_.index_select(0, at::tensor(last, at::kLong))).ids;
    }
    return search->hypotheses();
  }

 private:
  at::Tensor logits_;
};

// 0: the end. From 1, the greedy way (2, then 0.5 · 0.4 · …) loses against the one over 3.
Table make_table() {
  return Table(at::tensor({1.00F, 0.00F, 0.00F, 0.00F, 0.00F,  //
                           0.05F, 0.00F, 0.50F, 0.45F, 0.00F,  //
                           0.20F, 0.20F, 0.20F, 0.20F, 0.20F,  //
                           0.05F, 0.00F, 0.00F, 0.00F, 0.95F,  //
                           0.90F, 0.05F, 0.05F, 0.00F, 0.00F})
                   .view({5, 5}));
}

TEST_CASE("greedy search takes the lowest of equals, beam search the better way") {
  GenerationOptions options;
  options.eos_token_ids = {0};
  options.max_new_tokens = 6;
  const auto greedy = make_table().run(options, 1);
  CHECK(greedy[0].ids == Ids{2, 0});
  CHECK(greedy[0].logprobs[1] == Approx(std::log(0.2)));
  CHECK(greedy[0].finish_reason == "stop");
  options.num_beams = 2;
  options.num_return_sequences = 2;
  const auto beams = make_table().run(options, 1);
  REQUIRE(beams.size() == 2);
  CHECK(beams[0].ids == Ids{3, 4, 0});
  CHECK(beams[0].score == Approx(std::log(0.45 * 0.95 * 0.9) / 3));
  CHECK(beams[0].score >= beams[1].score);
  options.max_new_tokens = 1;
  CHECK(make_table().run(options, 1)[0].finish_reason == "length");
}

TEST_CASE("draws follow the distribution, and depend on seed and stream alone") {
  GenerationOptions options;
  options.do_sample = true;
  options.max_new_tokens = 1;
  options.num_return_sequences = 200;
  std::map<std::int64_t, int> counts;
  for (std::uint64_t stream = 0; stream < 20; ++stream) {
    for (const auto& answer : make_table().run(options, 1, stream)) ++counts[answer.ids[0]];
  }
  CHECK(counts[1] + counts[4] == 0);
  CHECK(counts[2] == Approx(2000).margin(150));  // of 4,000; five standard deviations
  CHECK(counts[3] == Approx(1800).margin(150));
  const auto ids_of = [&](std::uint64_t seed, std::uint64_t stream) {
    options.seed = seed;
    Ids ids;
    for (const auto& answer : make_table().run(options, 2, stream)) ids.push_back(answer.ids[0]);
    return ids;
  };
  CHECK(ids_of(1, 7) == ids_of(1, 7));
  CHECK(ids_of(1, 7) != ids_of(2, 7));
  CHECK(ids_of(1, 7) != ids_of(1, 8));
}

TEST_CASE("beams that are drawn end with the table's words") {
  GenerationOptions options;
  options.do_sample = true;
  options.num_beams = 3;
  options.num_return_sequences = 3;
  options.eos_token_ids = {0};
  options.max_new_tokens = 8;
  std::set<Ids> seen;
  for (std::uint64_t stream = 0; stream < 30; ++stream) {
    const auto beams = make_table().run(options, 1, stream);
    CHECK((beams == make_table().run(options, 1, stream)));
    seen.insert(beams[0].ids);
  }
  CHECK(seen.size() > 1);
}

TEST_CASE("an interrupted search gives what it has") {
  GenerationOptions options;
  options.max_new_tokens = 9;
  for (const std::int64_t beams : {1, 2}) {
    options.num_beams = beams;
    const auto search = make_search({.options = options, .prompt = {1}});
    search->advance(at::tensor({0.F, 1.F, 2.F}).view({1, 3}));
    CHECK(search->first_token_entropy() == Approx(0.8324).margin(1e-3));
    search->interrupt();
    CHECK(search->rows() == 0);
    CHECK(search->hypotheses()[0].ids == Ids{2});
    CHECK(search->hypotheses()[0].finish_reason == "interrupted");
  }
}

TEST_CASE("counted random numbers are uniform and lie inside (0, 1)") {
  CountedRandom random(3, 4);
  double sum = 0, least = 1, most = 0;
  for (int i = 0; i < 10000; ++i) {
    const double value = random.uniform();
    sum += value;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  CHECK(sum / 10000 == Approx(0.5).margin(0.02));
  CHECK(least > 0);
  CHECK(most < 1);
}

}  // namespace
}  // namespace vlm::infer
