#include "vlm/text/bpe/post_processor.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"

namespace vlm {

PostProcessor::PostProcessor(const Json* json, const std::string& where) {
  if (json != nullptr) add_steps(*json, where);
}

void PostProcessor::add_steps(const Json& json, const std::string& where) {
  const std::string type = get_string(json, "type", where);
  if (type == "Sequence") {
    const Json& parts = get_array(json, "processors", where);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      add_steps(parts[i], inside(inside(where, "processors"), i));
    }
  } else if (type == "TemplateProcessing") {
    add_template(json, where);
  } else if (type != "ByteLevel") {
    refuse_component(type, inside(where, "type"), "ByteLevel, TemplateProcessing or Sequence");
  }
}

void PostProcessor::add_template(const Json& json, const std::string& where) {
  const Json& parts = get_array(json, "single", where);
  const Json& specials = get_member(json, "special_tokens", where);
  std::vector<Part> result;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string place = inside(inside(where, "single"), i);
    if (const Json* sequence = find_member(parts[i], "Sequence", place)) {
      const std::string name = get_string(*sequence, "id", place);
      if (name == "A") {
        result.push_back({.is_text = true});
        continue;
      }
      throw Error({.what = "template for one text names another",
                   .where = place,
                   .got = concat("\"", name, "\""),
                   .wanted = "\"A\""});
    }
    const std::string name = get_string(get_member(parts[i], "SpecialToken", place), "id", place);
    const std::string entry = inside(inside(where, "special_tokens"), name);
    const Json& ids =
        get_array(get_member(specials, name, inside(where, "special_tokens")), "ids", entry);
    Part part;
    for (const Json& id : ids) part.ids.push_back(to_token_id(id, inside(entry, "ids")));
    result.push_back(std::move(part));
  }
  templates_.push_back(std::move(result));
}

std::vector<std::int64_t> PostProcessor::apply(std::vector<std::int64_t> ids) const {
  for (const auto& parts : templates_) {
    std::vector<std::int64_t> result;
    for (const Part& part : parts) {
      const auto& added = part.is_text ? ids : part.ids;
      result.insert(result.end(), added.begin(), added.end());
    }
    ids = std::move(result);
  }
  return ids;
}

}  // namespace vlm
