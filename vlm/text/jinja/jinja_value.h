// Values of a chat template: what Python would hold, as far as templates of this family need it.
//
// Lists, dicts and namespaces are shared, so copies are cheap; only namespaces ever change.
// Printing, truth, equality and indexing are Python's and Jinja's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace vlm {

class JinjaValue {
 public:
  struct Undefined {
    std::string name;  // what was asked for, for errors
  };
  struct None {};
  using List = std::vector<JinjaValue>;
  using Entries = std::vector<std::pair<std::string, JinjaValue>>;
  struct Dict {
    Entries entries;
    bool is_namespace = false;
  };

  JinjaValue() : data_(Undefined{}) {}
  JinjaValue(Undefined value) : data_(std::move(value)) {}
  JinjaValue(None value) : data_(value) {}
  JinjaValue(bool value) : data_(value) {}
  JinjaValue(std::int64_t value) : data_(value) {}
  JinjaValue(std::string value) : data_(std::move(value)) {}
  JinjaValue(const char* value) : data_(std::string(value)) {}
  JinjaValue(List value) : data_(std::make_shared<List>(std::move(value))) {}
  JinjaValue(Dict value) : data_(std::make_shared<Dict>(std::move(value))) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const List* list() const { return pointed<List>(); }
  Dict* dict() const { return pointed<Dict>(); }
  std::string undefined_name() const { return std::get<Undefined>(data_).name; }

  // Integers, and booleans as 0 and 1.
  std::optional<std::int64_t> integer() const;

  // "undefined", "string", "list", … for errors.
  std::string type_name() const;

  bool is_true() const;

  // str(value); nothing for lists and dicts, whose form in print is not supported.
  std::optional<std::string> to_text() const;

  // Number of characters, items or entries; nothing where there is no such number.
  std::optional<std::int64_t> length() const;

  // What a loop runs over: items, characters, or keys; nothing where it can't.
  std::optional<List> items() const;

  // value[key]; Undefined where there is none.
  JinjaValue at(const JinjaValue& key) const;

 private:
  template <typename T>
  T* pointed() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  std::variant<Undefined, None, bool, std::int64_t, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>>
      data_;
};

bool operator==(const JinjaValue& left, const JinjaValue& right);

// The entry `key`, or null.
JinjaValue* find_entry(JinjaValue::Dict& dict, std::string_view key);

// Characters (code points) of a text.
std::vector<std::string> to_characters(std::string_view text);

// str.capitalize, str.title as the filter has it, str.upper and str.lower, by simple case mappings.
std::string capitalize_text(std::string_view text);
std::string title_text(std::string_view text);
std::string upper_text(std::string_view text);
std::string lower_text(std::string_view text);

// str.strip with the characters given, or white space.
struct StripSides {
  bool left = true;
  bool right = true;
};
std::string strip_text(std::string_view text, const std::optional<std::string>& characters,
                       StripSides sides = {});

}  // namespace vlm
