// The rules of an EBNF grammar that is being written, and those that every JSON value needs.
#pragma once

#include <map>
#include <string>

namespace vlm::infer {

class GrammarRules {
 public:
  // The name of a rule with this body; the same body has one rule.
  std::string add(const std::string& body);
  // A name whose body comes later: for what refers to itself.
  std::string reserve();
  void set(const std::string& name, const std::string& body);

  // Names of rules for JSON; each is written when it is first asked for.
  // White space, up to 8 characters. It stands where people put it: behind brackets that open,
  // commas and colons, and before brackets that close.
  std::string space();
  std::string character();  // of a string
  std::string text();       // any string
  std::string any();        // any value
  std::string any_object();

  // The grammar whose root has this body.
  std::string to_text(const std::string& root) const;
  std::size_t bytes() const { return text_.size(); }

 private:
  void write(const std::string& name, const std::string& body);
  void need_any();

  std::string text_;
  std::map<std::string, std::string> by_body_;
  int count_ = 0;
  bool has_any_ = false;
};

}  // namespace vlm::infer
