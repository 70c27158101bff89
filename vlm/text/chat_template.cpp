#include "vlm/text/chat_template.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/json_access.h"
#include "vlm/core/text_file.h"
#include "vlm/text/jinja/jinja_clock.h"
#include "vlm/text/jinja/jinja_evaluator.h"
#include "vlm/text/jinja/jinja_parser.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// The language indexes and prints characters, so its strings are valid UTF-8.
JinjaValue to_value(const std::string& text) {
  return to_valid_utf8(text);
}

JinjaValue to_value(const Message& message) {
  JinjaValue::List parts;
  for (const ContentPart& part : message.content) {
    JinjaValue::Dict dict;
    dict.entries.emplace_back("type", to_value(part.type));
    if (part.type == "text") dict.entries.emplace_back("text", to_value(part.text));
    parts.emplace_back(std::move(dict));
  }
  const JinjaValue content =
      message.plain_content ? to_value(*message.plain_content) : JinjaValue(std::move(parts));
  return JinjaValue::Dict{.entries = {{"role", to_value(message.role)}, {"content", content}}};
}

JinjaValue to_value(const Json& json, const std::string& where) {
  if (json.is_null()) return JinjaValue::None{};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_string()) return to_value(json.get<std::string>());
  if (json.is_array()) {
    JinjaValue::List items;
    for (const Json& item : json) items.push_back(to_value(item, where));
    return items;
  }
  if (json.is_object()) {
    JinjaValue::Dict dict;
    for (const auto& [key, value] : json.items()) {
      dict.entries.emplace_back(key, to_value(value, where));
    }
    return dict;
  }
  throw Error({.what = "not a value for a chat template",
               .where = where,
               .got = describe(json),
               .wanted = "text, an integer, true, false, null, or lists and objects of them"});
}

JinjaBody parse_template(const std::string& source, const std::string& where) {
  if (!is_valid_utf8(source)) {
    throw Error({.what = "chat template is not UTF-8 text", .where = where});
  }
  return parse_jinja(source, where);
}

// "chat_template" of a JSON file: a string, or a list of {"name", "template"} with a "default".
std::optional<std::string> read_template(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const Json json = load_json(path);
  const Json* found = find_member(json, "chat_template", path.string());
  if (found == nullptr) return std::nullopt;
  if (!found->is_array()) return get_string(json, "chat_template", path.string());
  const std::string place = inside(path.string(), "chat_template");
  for (const Json& entry : *found) {
    if (get_string(entry, "name", place) == "default") return get_string(entry, "template", place);
  }
  throw Error({.what = "no template is called \"default\"", .where = place});
}

// Adds the members "…_token" of a file: strings, or objects with the string in "content".
void add_special_tokens(const Json& json, const std::string& where,
                        ChatTemplate::Variables& variables) {
  for (const auto& [key, value] : json.items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_string()) variables[key] = value.get<std::string>();
    if (value.is_object()) variables[key] = get_string(value, "content", inside(where, key));
  }
}

constexpr std::array<const char*, 3> kJsonFiles = {"chat_template.json", "processor_config.json",
                                                   "tokenizer_config.json"};

void require_use(const std::string& source, const std::string& name, const std::string& option,
                 const std::string& where) {
  if (source.find(name) != std::string::npos) return;
  throw Error({.what = "the chat template doesn't use it", .where = option, .got = where});
}

}  // namespace

void TemplateOptions::add_argument(const std::string& assignment) {
  const std::size_t sign = assignment.find('=');
  if (sign == std::string::npos || sign == 0) {
    throw Error({.what = "not an argument for a chat template",
                 .got = concat("'", assignment, "'"),
                 .wanted = "NAME=VALUE"});
  }
  const std::string value = assignment.substr(sign + 1);
  const Json json = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  arguments[assignment.substr(0, sign)] = json.is_discarded() ? Json(value).dump() : value;
}

ChatTemplate::Variables load_special_tokens(const fs::path& folder) {
  ChatTemplate::Variables variables;
  bool complete = false;
  if (const fs::path path = folder / "tokenizer_config.json"; fs::exists(path)) {
    const Json json = load_json(path);
    complete = find_member(json, "added_tokens_decoder", path.string()) != nullptr;
    add_special_tokens(json, path.string(), variables);
  }
  if (const fs::path path = folder / "special_tokens_map.json"; !complete && fs::exists(path)) {
    add_special_tokens(load_json(path), path.string(), variables);
  }
  return variables;
}

struct ChatTemplate::Program {
  JinjaBody body;
  std::string where;
  JinjaEvaluator::Variables variables;
  std::optional<std::tm> clock;
};

ChatTemplate::ChatTemplate(const std::string& source, const std::string& where, Variables variables,
                           const TemplateOptions& options)
    : program_(std::make_unique<Program>(
          Program{.body = parse_template(source, where), .where = where})) {
  for (const auto& [name, text] : variables) program_->variables[name] = to_value(text);
  for (const auto& [name, value] : options.arguments) {
    require_use(source, name, "argument " + name, where);
    program_->variables[name] = to_value(parse_json(value, "argument " + name), "argument " + name);
  }
  if (options.day) {
    require_use(source, "strftime_now", "date", where);
    program_->clock = parse_day(*options.day, "date");
  } else if (options.has_clock) {
    program_->clock = local_time();
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const std::vector<Message>& messages,
                                 bool add_generation_prompt) const {
  JinjaEvaluator::Variables variables = program_->variables;
  JinjaValue::List list;
  for (const Message& message : messages) list.push_back(to_value(message));
  variables["messages"] = std::move(list);
  variables["add_generation_prompt"] = add_generation_prompt;
  variables["tools"] = JinjaValue::None{};
  variables["documents"] = JinjaValue::None{};
  return JinjaEvaluator(std::move(variables), program_->where, program_->clock).run(program_->body);
}

bool has_chat_template(const fs::path& folder) {
  return fs::exists(folder / "chat_template.jinja") ||
         std::any_of(kJsonFiles.begin(), kJsonFiles.end(),
                     [&](const char* name) { return read_template(folder / name).has_value(); });
}

std::optional<std::string> find_chat_template(const fs::path& folder) {
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) return load_plain_text(jinja);
  for (const char* name : kJsonFiles) {
    if (auto source = read_template(folder / name)) return source;
  }
  return std::nullopt;
}

ChatTemplate load_chat_template(const fs::path& folder, const TemplateOptions& options) {
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) {
    return ChatTemplate(load_plain_text(jinja), jinja.string(), load_special_tokens(folder),
                        options);
  }
  for (const char* name : kJsonFiles) {
    if (const auto source = read_template(folder / name)) {
      return ChatTemplate(*source, (folder / name).string(), load_special_tokens(folder), options);
    }
  }
  throw Error({.what = "no chat template found",
               .where = folder.string(),
               .wanted = "chat_template.jinja, chat_template.json, or \"chat_template\" in "
                         "processor_config.json or tokenizer_config.json"});
}

}  // namespace vlm
