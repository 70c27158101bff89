// Searches that follow a grammar, on tables of a few words.
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "infer/search/logits_processor.h"
#include "infer/search/search.h"
#include "infer/structured/answer_grammar.h"
#include "tests/support/tensors.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

// Allows the beginnings of a few sequences of ids.
class ListMatcher : public AnswerMatcher {
 public:
  explicit ListMatcher(std::vector<Ids> left) : left_(std::move(left)) {}

  void find_allowed(std::span<std::uint32_t> allowed) override {
    std::ranges::fill(allowed, 0);
    for (const Ids& ids : left_) {
      if (taken_ < ids.size()) allowed[0] |= 1U << ids[taken_];
    }
  }
  bool accept(std::int64_t id) override {
    if (std::ranges::none_of(
            left_, [&](const Ids& ids) { return taken_ < ids.size() && ids[taken_] == id; })) {
      return false;
    }
    std::erase_if(left_, [&](const Ids& ids) { return taken_ >= ids.size() || ids[taken_] != id; });
    ++taken_;
    return true;
  }
  // A letter a token: "c" is 2.
  bool accept_text(std::string_view text) override {
    return std::ranges::all_of(text, [this](char letter) { return accept(letter - 'a'); });
  }
  bool is_complete() const override {
    return std::ranges::any_of(left_, [&](const Ids& ids) { return ids.size() == taken_; });
  }
  std::unique_ptr<AnswerMatcher> fork() const override {
    return std::make_unique<ListMatcher>(*this);
  }

 private:
  std::vector<Ids> left_;
  std::size_t taken_ = 0;
};

// Its mask lets a token pass that it refuses, too.
class LaxMatcher : public ListMatcher {
 public:
  using ListMatcher::ListMatcher;
  void find_allowed(std::span<std::uint32_t> allowed) override {
    ListMatcher::find_allowed(allowed);
    allowed[0] |= 1U << kRefused;
  }
  std::unique_ptr<AnswerMatcher> fork() const override {
    return std::make_unique<LaxMatcher>(*this);
  }

  static constexpr std::int64_t kRefused = 1;
};

template <typename Matcher>
class GrammarOf : public TokenGrammar {
 public:
  explicit GrammarOf(std::vector<Ids> answers) : answers_(std::move(answers)) {}
  std::unique_ptr<AnswerMatcher> start() const override {
    return std::make_unique<Matcher>(answers_);
  }
  std::int64_t vocab_size() const override { return 8; }
  std::size_t bytes() const override { return 0; }

 private:
  std::vector<Ids> answers_;
};

constexpr std::int64_t kVocab = 10;  // the model's is larger than the tokenizer's
constexpr std::int64_t kEnd = 0, kOtherEnd = 7;

// The texts of the tokens, of which some begin with others.
const VocabularyBytes kTexts = {"", "b", "c", "cd", "d", "de", "cde", ""};

template <typename Matcher = ListMatcher>
GenerationOptions options_for(std::vector<Ids> answers) {
  GenerationOptions options;
  options.eos_token_ids = {kEnd, kOtherEnd};
  options.max_new_tokens = 8;
  options.grammar = std::make_shared<AnswerGrammar>(
      AnswerRule{}, std::make_shared<GrammarOf<Matcher>>(std::move(answers)),
      std::make_shared<const VocabularyBytes>(kTexts));
  return options;
}

// Of noise, or of fixed scores for every token.
std::vector<Hypothesis> run(const GenerationOptions& options, std::uint64_t stream,
                            const at::Tensor& scores = {}) {
  const auto search = make_search({.options = options, .prompt = {1}, .stream = stream});
  while (search->rows() > 0) {
    const at::Tensor logits = scores.defined() ? scores.expand({search->rows(), -1})
                                               : at::randn({search->rows(), kVocab});
    search->advance(logits);
  }
  return search->hypotheses();
}

Ids without_end(Ids ids) {
  if (!ids.empty() && (ids.back() == kEnd || ids.back() == kOtherEnd)) ids.pop_back();
  return ids;
}

const std::vector<Ids> kAnswers = {{2, 3}, {2, 4, 5}, {6}};

TEST_CASE("a token that the grammar refuses behind its mask is never in an answer") {
  // The refused one is by far the likeliest.
  at::Tensor scores = at::zeros({1, kVocab});
  scores[0][LaxMatcher::kRefused] = 20;
  for (const bool samples : {false, true}) {
    for (const std::int64_t beams : {1, 3}) {
      INFO("samples " << samples << ", beams " << beams);
      GenerationOptions options = options_for<LaxMatcher>(kAnswers);
      options.do_sample = samples;
      options.num_beams = beams;
      options.num_return_sequences = samples || beams > 1 ? 2 : 1;
      const auto found = run(options, 3, scores);
      CHECK(std::ssize(found) == options.num_return_sequences);
      for (const Hypothesis& answer : found) {
        CHECK(answer.finish_reason == "stop");
        CHECK(std::ranges::find(kAnswers, without_end(answer.ids)) != kAnswers.end());
      }
    }
  }
}

TEST_CASE("answers of every search follow the grammar, and end where it does") {
  at::manual_seed(7);
  for (const bool samples : {false, true}) {
    for (const std::int64_t beams : {1, 3}) {
      GenerationOptions options = options_for(kAnswers);
      options.do_sample = samples;
      options.num_beams = beams;
      options.num_return_sequences = samples || beams > 1 ? 2 : 1;
      for (std::uint64_t stream = 0; stream < 200; ++stream) {
        for (const Hypothesis& answer : run(options, stream)) {
          INFO("beams " << beams << ", stream " << stream);
          CHECK(answer.finish_reason == "stop");
          CHECK(std::ranges::find(kAnswers, without_end(answer.ids)) != kAnswers.end());
          CHECK(without_end(answer.ids).size() + 1 == answer.ids.size());
        }
      }
    }
  }
}

TEST_CASE("a forced beginning is spelled by any tokens that the grammar allows, and nothing else") {
  at::manual_seed(9);
  // "c" "d" …, "cd" …, "cde": tokens that spell "cd", or span its end.
  const std::vector<Ids> answers = {{2, 4, 1}, {3, 1}, {6}, {2, 5}, {1, 2}, {4}};
  GenerationOptions options = options_for(answers);
  options.forced_begin = "cd";
  options.do_sample = true;
  std::set<Ids> found;
  for (const std::int64_t beams : {1, 4}) {
    options.num_beams = beams;
    options.do_sample = beams == 1;
    options.num_return_sequences = beams;
    for (std::uint64_t stream = 0; stream < 200; ++stream) {
      for (const Hypothesis& answer : run(options, stream)) {
        if (answer.finish_reason == "stop") found.insert(without_end(answer.ids));
      }
    }
    CHECK(found == std::set<Ids>(answers.begin(), answers.begin() + 4));
    found.clear();
  }
  // What stands in the prompt already, the grammar has taken: behind "c" come "d" and "de".
  options.num_beams = 1;
  options.num_return_sequences = 1;
  options.do_sample = true;
  options.grammar_begin = "c";
  options.forced_begin = "d";
  for (std::uint64_t stream = 0; stream < 50; ++stream) {
    found.insert(without_end(run(options, stream)[0].ids));
  }
  CHECK(found == std::set<Ids>{{4, 1}, {5}});
  options.grammar_begin = "h";
  CHECK_THROWS_WITH(run(options, 0), Contains("doesn't allow the answer's beginning"));
}

TEST_CASE("beams find different answers, and no more than there are") {
  at::manual_seed(8);
  GenerationOptions options = options_for(kAnswers);
  options.num_beams = options.num_return_sequences = 5;
  options.eos_token_ids = {kEnd};
  const auto answers = run(options, 0);
  CHECK(answers.size() == 3);
  for (std::size_t i = 1; i < answers.size(); ++i) {
    CHECK(answers[i - 1].score >= answers[i].score);
    CHECK(answers[i - 1].ids != answers[i].ids);
  }
}

TEST_CASE("probabilities stay the model's own under a grammar") {
  const at::Tensor scores = at::zeros({1, kVocab});
  const auto answer = run(options_for({{6}}), 0, scores)[0];
  REQUIRE(answer.logprobs.size() == 2);
  CHECK(answer.logprobs[0] == Approx(-std::log(10.0)));
}

TEST_CASE("where bans leave nothing that the grammar allows, the grammar wins") {
  GenerationOptions options = options_for({{6}});
  options.bad_words_ids = {{6}};
  options.min_new_tokens = 5;
  options.no_repeat_ngram_size = 1;
  CHECK(without_end(run(options, 0)[0].ids) == Ids{6});
  // Where they leave something, they count.
  options.grammar = options_for(kAnswers).grammar;
  CHECK(without_end(run(options, 0)[0].ids)[0] == 2);
  options.num_beams = 2;
  CHECK(without_end(run(options, 0)[0].ids)[0] == 2);
}

TEST_CASE("an answer that no token goes on with is stuck, and one that is cut has its length") {
  for (const std::int64_t beams : {1, 2}) {
    GenerationOptions options = options_for({{2, 3}});
    options.num_beams = beams;
    options.eos_token_ids = {};  // nothing may follow, and nothing ends it
    const auto stuck = run(options, 0);
    REQUIRE(stuck.size() == 1);
    CHECK(stuck[0].finish_reason == "stuck");
    CHECK(stuck[0].ids == Ids{2, 3});
    options = options_for({{2, 3}});
    options.num_beams = beams;
    options.max_new_tokens = 1;
    CHECK(run(options, 0)[0].finish_reason == "length");
  }
}

TEST_CASE("a search with a grammar needs the logits of every step") {
  const auto search = make_search({.options = options_for(kAnswers), .prompt = {1}});
  search->advance(at::zeros({1, kVocab}));
  CHECK_FALSE(search->takes_likeliest());
}

}  // namespace
}  // namespace vlm::infer
