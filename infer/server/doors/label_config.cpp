#include "infer/server/doors/label_config.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "infer/server/api/api_error.h"
#include "infer/server/doors/xml_reader.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostLabelTokens = 100'000;

// Walks the tags in the order of the document.
class ConfigReader {
 public:
  explicit ConfigReader(std::string param) : param_(std::move(param)) {}

  LabelConfig read(const XmlElement& root) {
    walk(root, "");
    drop_unshown();
    if (!config_.controls.empty()) return std::move(config_);
    throw ApiError({.param = param_},
                   {.what = "nothing in the labelling config that can be answered",
                    .got = config_.left_out.empty() ? "no tag with toName"
                                                    : shown(join(config_.left_out, "; ")),
                    .wanted = "Choices or TextArea for an Image, a Video or a Text"});
  }

 private:
  // `hidden`: why what stands in here isn't always there for the one who labels.
  void walk(const XmlElement& element, std::string hidden) {
    if (!element.attribute("visibleWhen").empty()) hidden = "it isn't always there (visibleWhen)";
    if (element.name == "Header") header_ = element.attribute("value");
    if (!element.attribute("toName").empty()) return read_control(element, hidden);
    read_object(element);
    for (const XmlElement& child : element.children) walk(child, hidden);
  }

  void read_object(const XmlElement& element) {
    using Kind = LabelObject::Kind;
    static const std::map<std::string, Kind> kKinds = {{"Image", Kind::kPicture},
                                                       {"Video", Kind::kClip},
                                                       {"Text", Kind::kText},
                                                       {"HyperText", Kind::kText}};
    const auto kind = kKinds.find(element.name);
    if (kind == kKinds.end() || element.attribute("name").empty()) return;
    const std::string& list = element.attribute("valueList");
    const std::string& value = list.empty() ? element.attribute("value") : list;
    config_.objects.push_back(
        {.kind = kind->second, .name = element.attribute("name"), .value = value});
  }

  void read_control(const XmlElement& element, const std::string& hidden) {
    std::string why = hidden.empty() ? reason_against(element) : hidden;
    LabelControl control{.name = element.attribute("name"),
                         .to_name = element.attribute("toName"),
                         .question = element.attribute("model_question")};
    if (why.empty()) {
      if (control.question.empty()) control.question = std::exchange(header_, "");
      if (element.name == "Choices") why = read_choices(element, control);
      if (element.name == "TextArea") read_text_area(element, control);
    }
    if (why.empty()) return config_.controls.push_back(std::move(control));
    leave_out(element.name, control.name, why);
  }

  void leave_out(const std::string& tag, const std::string& name, const std::string& why) {
    config_.left_out.push_back(concat(tag, " '", shown(name), "': ", why));
  }

  static std::string reason_against(const XmlElement& element) {
    if (element.name != "Choices" && element.name != "TextArea") {
      return "only Choices and TextArea are answered";
    }
    if (element.attribute("model_skip") == "true") return "model_skip";
    for (const char* name : {"perRegion", "perItem"}) {
      if (element.attribute(name) == "true") return concat(name, " asks about parts");
    }
    if (element.attribute("name").empty()) return "it has no name";
    return "";
  }

  // Why these can't be asked; empty: they can.
  static std::string read_choices(const XmlElement& element, LabelControl& control) {
    control.choices_value = element.attribute("value");
    std::set<std::string> different;
    for (const XmlElement& child : element.children) {
      if (child.name != "Choice") continue;
      const bool is_tree = std::any_of(child.children.begin(), child.children.end(),
                                       [](const XmlElement& one) { return one.name == "Choice"; });
      if (is_tree) return "choices within choices";
      const std::string& value = child.attribute("value");
      const std::string& alias = child.attribute("alias");
      if (value.empty() || !different.insert(value).second)
        return "a choice is empty or there twice";
      control.choices.push_back({.value = value, .result = alias.empty() ? value : alias});
    }
    const bool is_enough = control.choices.size() > 1 || !control.choices_value.empty();
    return is_enough ? "" : "fewer than two choices";
  }

  void read_text_area(const XmlElement& element, LabelControl& control) const {
    control.kind = LabelControl::Kind::kTextArea;
    control.pattern = element.attribute("model_pattern");
    const std::string& most = element.attribute("model_max_tokens");
    if (most.empty()) return;
    const char* end = most.data() + most.size();
    const auto [rest, code] = std::from_chars(most.data(), end, control.max_tokens);
    const bool is_fine = code == std::errc() && rest == end && control.max_tokens > 0 &&
                         control.max_tokens <= kMostLabelTokens;
    if (is_fine) return;
    throw bad_value(param_, concat("model_max_tokens=\"", shown(most), "\""),
                    concat("a whole number from 1 to ", kMostLabelTokens));
  }

  // What labels a sound, say, which the model isn't shown.
  void drop_unshown() {
    std::vector<LabelControl> kept;
    for (LabelControl& control : config_.controls) {
      const bool is_shown =
          std::any_of(config_.objects.begin(), config_.objects.end(),
                      [&](const LabelObject& one) { return one.name == control.to_name; });
      const bool is_choices = control.kind == LabelControl::Kind::kChoices;
      if (is_shown) {
        kept.push_back(std::move(control));
      } else {
        leave_out(is_choices ? "Choices" : "TextArea", control.name,
                  concat("'", shown(control.to_name), "' is no Image, Video or Text"));
      }
    }
    config_.controls = std::move(kept);
  }

  const std::string param_;
  LabelConfig config_;
  std::string header_;  // that no tag has been asked by
};

}  // namespace

LabelConfig parse_label_config(const std::string& xml, const std::string& param) {
  XmlElement root;
  try {
    root = read_xml(xml);
  } catch (const Error& error) {
    ErrorParts parts = error.parts();
    parts.what = concat(parts.where.empty() ? "" : concat(parts.where, ": "), parts.what);
    throw ApiError({.param = param}, std::move(parts));
  }
  return ConfigReader(param).read(root);
}

}  // namespace vlm::infer
