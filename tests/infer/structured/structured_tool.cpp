// Compiles schemas and follows them, for scripts/parity_structured.py.
//
//   structured_tool MODEL_FOLDER < requests.jsonl > results.jsonl
//
// {"schema", "instances": [text …]} → {"accepted": [bool …]}
// {"schema", "answers": n, "seed", "beams"?} → {"answers": [{"text", "finish_reason"} …]}, by a
//   model of noise
// Both have "compile_ms", or "error" alone, where the schema is refused.
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "infer/answer_text.h"
#include "infer/search/search.h"
#include "infer/structured/answer_grammar.h"
#include "infer/structured/rule_compiler.h"
#include "vlm/text/tokenizer.h"

namespace vlm::infer {
namespace {

bool accepts(const AnswerGrammar& grammar, const Tokenizer& tokenizer, const std::string& text) {
  const auto matcher = grammar.start();
  for (const std::int64_t id : tokenizer.encode(text)) {
    if (!matcher->accept(id)) return false;
  }
  return matcher->is_complete();
}

// Tokens that end things are likelier, so that noise comes to an end.
at::Tensor closing_scores(const Tokenizer& tokenizer, std::int64_t end) {
  at::Tensor scores = at::zeros({tokenizer.vocab_size()});
  for (const char* token : {"\"", "}", "]", "\"}", "\"]"}) {
    if (const auto id = tokenizer.token_to_id(token)) scores[*id] = 5;
  }
  scores[end] = 8;
  return scores;
}

OrderedJson make_answers(const Json& request, std::shared_ptr<const AnswerGrammar> grammar,
                         const Tokenizer& tokenizer) {
  const std::int64_t end = tokenizer.token_to_id("<|im_end|>").value();
  const at::Tensor closing = closing_scores(tokenizer, end);
  at::manual_seed(request.value("seed", 0));
  OrderedJson answers = OrderedJson::array();
  for (std::int64_t i = 0; i < request["answers"]; ++i) {
    GenerationOptions options{.max_new_tokens = 400, .eos_token_ids = {end}, .do_sample = true};
    options.top_k = 0;
    options.num_beams = request.value("beams", 1);
    options.grammar = grammar;
    const auto search =
        make_search({.options = options, .prompt = {0}, .stream = static_cast<std::uint64_t>(i)});
    while (search->rows() > 0) {
      search->advance(at::randn({search->rows(), tokenizer.vocab_size()}) * 2 + closing);
    }
    const Hypothesis answer = search->hypotheses().at(0);
    answers.push_back({{"text", answer_text(tokenizer, answer.ids, options)},
                       {"finish_reason", answer.finish_reason}});
  }
  return answers;
}

OrderedJson handle(const OrderedJson& request, RuleCompiler& rules, const Tokenizer& tokenizer) {
  const auto begin = std::chrono::steady_clock::now();
  std::shared_ptr<const AnswerGrammar> grammar;
  try {
    grammar = rules.compile(
        {.kind = AnswerRule::Kind::kJsonSchema, .text = request["schema"].dump()}, "schema");
  } catch (const std::exception& error) {
    return {{"error", error.what()}};
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  OrderedJson result = {{"compile_ms", took.count()}};
  if (request.contains("instances")) {
    result["accepted"] = OrderedJson::array();
    for (const OrderedJson& text : request["instances"]) {
      result["accepted"].push_back(accepts(*grammar, tokenizer, text));
    }
  }
  if (request.contains("answers")) result["answers"] = make_answers(request, grammar, tokenizer);
  return result;
}

}  // namespace
}  // namespace vlm::infer

int main(int count, char** arguments) {
  if (count != 2) return 2;
  const std::shared_ptr<const vlm::Tokenizer> tokenizer = vlm::load_tokenizer(arguments[1]);
  vlm::infer::RuleCompiler rules(tokenizer);
  for (std::string line; std::getline(std::cin, line);) {
    const auto result = vlm::infer::handle(vlm::OrderedJson::parse(line), rules, *tokenizer);
    std::cout << result.dump(-1, ' ', false, vlm::OrderedJson::error_handler_t::replace)
              << std::endl;
  }
  return 0;
}
