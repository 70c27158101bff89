#include "infer/structured/grammar/grammar_rules.h"

#include "infer/structured/grammar/code_points.h"
#include "infer/structured/grammar/number_grammar.h"
#include "vlm/core/concat.h"

namespace vlm::infer {

void GrammarRules::write(const std::string& name, const std::string& body) {
  text_ += concat(name, " ::= ", body, "\n");
}

std::string GrammarRules::add(const std::string& body) {
  const auto [entry, is_new] = by_body_.emplace(body, "");
  if (is_new) {
    entry->second = reserve();
    write(entry->second, body);
  }
  return entry->second;
}

std::string GrammarRules::reserve() {
  return concat("r", ++count_);
}

void GrammarRules::set(const std::string& name, const std::string& body) {
  write(name, body);
}

std::string GrammarRules::space() {
  return add("[ \\n\\t]{0,8}");
}

std::string GrammarRules::character() {
  return add(CodePoints::all().to_grammar(/*in_json=*/true));
}

std::string GrammarRules::text() {
  return add(concat("\"\\\"\" ", character(), "* \"\\\"\""));
}

void GrammarRules::need_any() {
  if (has_any_) return;
  has_any_ = true;
  const std::string ws = space(), string = text();
  const std::string number = add(number_to_grammar({}, ""));
  write("any", concat("any_object | any_list | ", string, " | ", number,
                      " | \"true\" | \"false\" | \"null\""));
  const std::string member = concat(string, " \":\" ", ws, " any");
  write("any_object",
        concat("\"{\" ", ws, " (", member, " (\",\" ", ws, " ", member, ")* ", ws, ")? \"}\""));
  write("any_list", concat("\"[\" ", ws, " (any (\",\" ", ws, " any)* ", ws, ")? \"]\""));
}

std::string GrammarRules::any() {
  need_any();
  return "any";
}

std::string GrammarRules::any_object() {
  need_any();
  return "any_object";
}

std::string GrammarRules::to_text(const std::string& root) const {
  return concat("root ::= ", root, "\n", text_);
}

}  // namespace vlm::infer
