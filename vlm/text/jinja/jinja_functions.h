// The filters, tests and methods that chat templates may use, each as Jinja or Python has it.
//
// Filters: capitalize, count, d, default, first, join, last, length, list, lower, replace, string,
// title, trim, upper. Tests: boolean, defined, false, integer, iterable, mapping, none, number,
// sequence, string, true, undefined. Methods of strings: capitalize, endswith, join, lower, lstrip,
// replace, rstrip, split, startswith, strip, title, upper; of dicts: get, items, keys, values. Any
// other is an Error that names it. Upper and lower case go by single code points ("ß" stays).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "vlm/text/jinja/jinja_value.h"

namespace vlm {

// Longest string and list that a template may make.
inline constexpr std::size_t kMaxJinjaText = 16 << 20;
inline constexpr std::size_t kMaxJinjaItems = 1 << 17;

// Where something is called, for errors.
struct JinjaPlace {
  const std::string& file;
  int line = 0;

  [[noreturn]] void fail(const std::string& what, const std::string& got) const;
};

struct JinjaArguments {
  std::vector<JinjaValue> positional = {};
  std::vector<std::pair<std::string, JinjaValue>> named = {};
};

JinjaValue apply_jinja_filter(const std::string& name, const JinjaValue& value,
                              const JinjaArguments& arguments, const JinjaPlace& place);

bool apply_jinja_test(const std::string& name, const JinjaValue& value, const JinjaPlace& place);

JinjaValue call_jinja_method(const std::string& name, const JinjaValue& object,
                             const JinjaArguments& arguments, const JinjaPlace& place);

// str(value); an Error for lists and dicts.
std::string jinja_text(const JinjaValue& value, const JinjaPlace& place);

// `text`, when it is no longer than kMaxJinjaText.
std::string bounded_jinja_text(std::string text, const JinjaPlace& place);

}  // namespace vlm
