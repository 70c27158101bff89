// The beginning of an answer in its prompt: which of its tokens stay there.
#include "infer/search/forced_begin.h"

#include "infer/structured/rule_compiler.h"
#include "tests/infer/sessions.h"

namespace vlm::infer {
namespace {

struct BegunAnswer {
  Session session = open_fixture("smolvlm_tiny");

  std::shared_ptr<const AnswerGrammar> compile(const std::string& pattern) {
    return session.rules->compile({.kind = AnswerRule::Kind::kRegex, .text = pattern}, "");
  }
  std::vector<std::string> tokens(const std::string& text) const {
    std::vector<std::string> bytes;
    for (const std::int64_t id : session.processor->tokenizer().encode(text)) {
      bytes.push_back(session.processor->tokenizer().token_bytes(id));
    }
    return bytes;
  }
};

TEST_CASE("tokens leave the prompt as far back as an allowed one spans the text's end") {
  BegunAnswer begun;
  const std::string text = "{\"a\": [1, 2";
  const auto tokens = begun.tokens(text);
  const auto grammar = begun.compile(R"(\{"a": \[1, 2[0-9, "a-z]*\]\})");
  const ForcedBegin begin = find_forced_begin(*grammar, text, tokens);
  CHECK(begin.kept + begin.rest == text);
  std::string kept;
  for (std::size_t i = 0; i < begin.kept_tokens; ++i) kept += tokens[i];
  CHECK(kept == begin.kept);
  // By hand: the first of the boundaries behind which a token of the vocabulary goes on.
  const VocabularyBytes& vocabulary = grammar->vocabulary();
  std::size_t wanted = tokens.size(), at = text.size();
  for (std::size_t count = tokens.size(); count > 0; --count) {
    at -= tokens[count - 1].size();
    for (const std::string& token : vocabulary) {
      if (token.size() <= text.size() - at || !token.starts_with(text.substr(at))) continue;
      const auto matcher = grammar->start();
      if (matcher->accept_text(text.substr(0, at) + token)) wanted = count - 1;
    }
  }
  CHECK(begin.kept_tokens == wanted);
  // Where nothing spans the end, all stay.
  const ForcedBegin whole = find_forced_begin(*begun.compile("yes"), "yes", begun.tokens("yes"));
  CHECK(whole.kept_tokens == begun.tokens("yes").size());
  CHECK(whole.kept == "yes");
  CHECK(whole.rest.empty());
}

TEST_CASE("a template's space stays, and a text that no answer begins with is refused") {
  BegunAnswer begun;
  const auto grammar = begun.compile("yes|no");
  const ForcedBegin begin = find_forced_begin(*grammar, "y", begun.tokens(" y"));
  CHECK(begin.kept_tokens == begun.tokens(" y").size());
  CHECK(begin.kept == "y");
  CHECK_THROWS_WITH(
      find_forced_begin(*grammar, "maybe", begun.tokens("maybe")),
      "no answer of the asked form begins so: got maybe (the form holds for the whole "
      "answer, its given beginning included)");
  CHECK_THROWS_WITH(find_forced_begin(*grammar, "yess", begun.tokens("yess")),
                    Contains("begins so"));
}

}  // namespace
}  // namespace vlm::infer
