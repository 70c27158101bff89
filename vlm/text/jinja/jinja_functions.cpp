#include "vlm/text/jinja/jinja_functions.h"

#include <algorithm>
#include <functional>
#include <map>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

using List = JinjaValue::List;

// The arguments of one call, asked for by place or name, so that none is ignored.
class ArgumentReader {
 public:
  ArgumentReader(const std::string& name, const JinjaArguments& arguments, const JinjaPlace& place)
      : name_(name), arguments_(arguments), place_(place) {}

  // The argument at the next place, or called `name`.
  std::optional<JinjaValue> next(const std::string& name) {
    if (used_ < arguments_.positional.size()) return arguments_.positional[used_++];
    for (const auto& [other, value] : arguments_.named) {
      if (other != name) continue;
      ++named_used_;
      return value;
    }
    return std::nullopt;
  }

  std::optional<std::string> next_text(const std::string& name) {
    const auto value = next(name);
    if (!value || value->is_none()) return std::nullopt;
    if (value->string() == nullptr) fail("wants a string", value->type_name());
    return *value->string();
  }

  std::string need_text(const std::string& name) {
    const auto text = next_text(name);
    if (!text) fail("lacks an argument", name);
    return *text;
  }

  void finish() const {
    if (used_ < arguments_.positional.size() || named_used_ < arguments_.named.size()) {
      fail("has an argument that is not supported",
           concat(arguments_.positional.size() + arguments_.named.size(), " arguments"));
    }
  }

  [[noreturn]] void fail(const std::string& what, const std::string& got) const {
    place_.fail(concat("\"", name_, "\" ", what), got);
  }

  const JinjaPlace& place() const { return place_; }

 private:
  const std::string& name_;
  const JinjaArguments& arguments_;
  const JinjaPlace& place_;
  std::size_t used_ = 0;
  std::size_t named_used_ = 0;
};

std::string replace_text(const std::string& text, const std::string& from, const std::string& to,
                         const JinjaPlace& place) {
  if (from.empty()) place.fail("replace of an empty string is not supported", "\"\"");
  std::string result;
  std::size_t done = 0;
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    result = bounded_jinja_text(result.append(text, done, at - done) + to, place);
    done = at + from.size();
  }
  return bounded_jinja_text(result.append(text, done), place);
}

List split_text(const std::string& text, const std::optional<std::string>& separator,
                const JinjaPlace& place) {
  if (!separator || separator->empty()) place.fail("split without a separator", "\"split\"");
  List result;
  std::size_t done = 0;
  for (auto at = text.find(*separator); at != std::string::npos; at = text.find(*separator, done)) {
    result.emplace_back(text.substr(done, at - done));
    done = at + separator->size();
    if (result.size() > kMaxJinjaItems) place.fail("list is too long", "split");
  }
  result.emplace_back(text.substr(done));
  return result;
}

List items_of(const JinjaValue& value, const ArgumentReader& reader) {
  auto items = value.items();
  if (!items) reader.fail("can't run over this value", value.type_name());
  return std::move(*items);
}

JinjaValue join_items(const JinjaValue& value, const std::string& separator,
                      const ArgumentReader& reader) {
  std::string result;
  bool first = true;
  for (const JinjaValue& item : items_of(value, reader)) {
    if (!first) result += separator;
    first = false;
    result =
        bounded_jinja_text(std::move(result) + jinja_text(item, reader.place()), reader.place());
  }
  return result;
}

JinjaValue default_filter(const JinjaValue& value, ArgumentReader& reader) {
  const JinjaValue instead = reader.next("default_value").value_or(JinjaValue(""));
  const bool falsy_too = reader.next("boolean").value_or(JinjaValue(false)).is_true();
  return value.is_undefined() || (falsy_too && !value.is_true()) ? instead : value;
}

JinjaValue length_filter(const JinjaValue& value, ArgumentReader& reader) {
  const auto length = value.length();
  if (!length) reader.fail("wants something with a length", value.type_name());
  return *length;
}

JinjaValue edge_filter(const JinjaValue& value, ArgumentReader& reader, bool first) {
  const List items = items_of(value, reader);
  if (items.empty()) return {};
  return first ? items.front() : items.back();
}

using Filter = std::function<JinjaValue(const JinjaValue&, ArgumentReader&)>;

Filter text_filter(std::string (*map)(std::string_view)) {
  return [map](const JinjaValue& value, ArgumentReader& reader) {
    return JinjaValue(map(jinja_text(value, reader.place())));
  };
}

const std::map<std::string, Filter>& filters() {
  static const std::map<std::string, Filter> table = {
      {"capitalize", text_filter(capitalize_text)},
      {"upper", text_filter(upper_text)},
      {"lower", text_filter(lower_text)},
      {"title", text_filter(title_text)},
      {"string", text_filter([](std::string_view text) { return std::string(text); })},
      {"trim",
       [](const JinjaValue& value, ArgumentReader& reader) {
         const std::string text = jinja_text(value, reader.place());
         return JinjaValue(strip_text(text, reader.next_text("chars")));
       }},
      {"length", length_filter},
      {"count", length_filter},
      {"default", default_filter},
      {"d", default_filter},
      {"first", [](const JinjaValue& value,
                   ArgumentReader& reader) { return edge_filter(value, reader, true); }},
      {"last", [](const JinjaValue& value,
                  ArgumentReader& reader) { return edge_filter(value, reader, false); }},
      {"join",
       [](const JinjaValue& value, ArgumentReader& reader) {
         return join_items(value, reader.next_text("d").value_or(""), reader);
       }},
      {"list", [](const JinjaValue& value,
                  ArgumentReader& reader) { return JinjaValue(items_of(value, reader)); }},
      {"replace",
       [](const JinjaValue& value, ArgumentReader& reader) {
         const std::string from = reader.need_text("old");
         return JinjaValue(replace_text(jinja_text(value, reader.place()), from,
                                        reader.need_text("new"), reader.place()));
       }},
  };
  return table;
}

JinjaValue call_text_method(const std::string& name, const std::string& text,
                            ArgumentReader& reader) {
  if (name == "strip") return strip_text(text, reader.next_text("chars"));
  if (name == "lstrip") return strip_text(text, reader.next_text("chars"), {.right = false});
  if (name == "rstrip") return strip_text(text, reader.next_text("chars"), {.left = false});
  if (name == "upper") return upper_text(text);
  if (name == "lower") return lower_text(text);
  if (name == "capitalize") return capitalize_text(text);
  if (name == "title") return title_text(text);
  if (name == "startswith") return text.starts_with(reader.need_text("prefix"));
  if (name == "endswith") return text.ends_with(reader.need_text("suffix"));
  if (name == "split") return split_text(text, reader.next_text("sep"), reader.place());
  if (name == "join") {
    const auto items = reader.next("iterable");
    if (!items) reader.fail("lacks an argument", "iterable");
    return join_items(*items, text, reader);
  }
  if (name == "replace") {
    const std::string from = reader.need_text("old");
    return replace_text(text, from, reader.need_text("new"), reader.place());
  }
  reader.fail("is not a method that is supported", "a string");
}

JinjaValue call_dict_method(const std::string& name, JinjaValue::Dict& dict,
                            ArgumentReader& reader) {
  if (name == "get") {
    const JinjaValue* found = find_entry(dict, reader.need_text("key"));
    const auto instead = reader.next("default");
    return found != nullptr ? *found : instead.value_or(JinjaValue(JinjaValue::None{}));
  }
  List result;
  for (const auto& [key, value] : dict.entries) {
    if (name == "keys") {
      result.emplace_back(key);
    } else if (name == "values") {
      result.push_back(value);
    } else if (name == "items") {
      result.emplace_back(List{JinjaValue(key), value});
    }
  }
  if (name == "keys" || name == "values" || name == "items") return result;
  reader.fail("is not a method that is supported", "a dict");
}

}  // namespace

void JinjaPlace::fail(const std::string& what, const std::string& got) const {
  throw Error({.what = what, .where = concat(file, ":", line), .got = got});
}

std::string jinja_text(const JinjaValue& value, const JinjaPlace& place) {
  auto text = value.to_text();
  if (!text) place.fail("printing this value is not supported", value.type_name());
  return std::move(*text);
}

std::string bounded_jinja_text(std::string text, const JinjaPlace& place) {
  if (text.size() > kMaxJinjaText) place.fail("text is too long", concat(text.size(), " bytes"));
  return text;
}

JinjaValue apply_jinja_filter(const std::string& name, const JinjaValue& value,
                              const JinjaArguments& arguments, const JinjaPlace& place) {
  const auto found = filters().find(name);
  if (found == filters().end()) place.fail("filter is not supported", concat("\"", name, "\""));
  ArgumentReader reader(name, arguments, place);
  JinjaValue result = found->second(value, reader);
  reader.finish();
  return result;
}

bool apply_jinja_test(const std::string& name, const JinjaValue& value, const JinjaPlace& place) {
  const bool sized = value.length().has_value();
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.string() != nullptr;
  if (name == "mapping") return value.dict() != nullptr && sized;
  if (name == "iterable" || name == "sequence") return sized;
  if (name == "number") return value.integer().has_value();
  if (name == "integer") return value.integer() && value.boolean() == nullptr;
  if (name == "boolean") return value.boolean() != nullptr;
  if (name == "true") return value.boolean() != nullptr && *value.boolean();
  if (name == "false") return value.boolean() != nullptr && !*value.boolean();
  place.fail("test is not supported", concat("\"", name, "\""));
}

JinjaValue call_jinja_method(const std::string& name, const JinjaValue& object,
                             const JinjaArguments& arguments, const JinjaPlace& place) {
  ArgumentReader reader(name, arguments, place);
  JinjaValue result;
  if (const auto* text = object.string()) {
    result = call_text_method(name, *text, reader);
  } else if (auto* dict = object.dict(); dict != nullptr && !dict->is_namespace) {
    result = call_dict_method(name, *dict, reader);
  } else {
    reader.fail("is not a method that is supported", object.type_name());
  }
  reader.finish();
  return result;
}

}  // namespace vlm
