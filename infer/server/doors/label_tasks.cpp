#include "infer/server/doors/label_tasks.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "infer/server/api/body_reader.h"
#include "infer/server/doors/inner_ask.h"
#include "infer/server/http/http_head.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostTasks = 1000;
constexpr std::size_t kMostConfigBytes = 256 << 10;

// The value of "$name" or "$name.inner" in a task's data; any other text is itself.
OrderedJson resolve_field(const std::string& value, const OrderedJson& data,
                          const std::string& place) {
  if (!value.starts_with('$')) return value;
  const std::string name = value.substr(1);
  if (data.contains(name)) return data[name];
  const OrderedJson* found = &data;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    if (!found->is_object() || !found->contains(part)) {
      throw missing_value(concat(place, ".data.", shown(name)),
                          concat("what the labelling config calls ", shown(value)));
    }
    found = &(*found)[part];
    at = end + 1;
  }
  return *found;
}

std::string text_of_field(const std::string& value, const OrderedJson& data,
                          const std::string& place) {
  const OrderedJson field = resolve_field(value, data, place);
  if (field.is_string()) return field;
  if (field.is_number() || field.is_boolean()) return field.dump();
  throw bad_value(concat(place, ".data.", shown(value.substr(value.starts_with('$') ? 1 : 0))),
                  field, "a text");
}

std::string media_url(const std::string& url, const std::string& place, const LabelFiles* files) {
  if (!url.starts_with('/')) return url;
  const std::string param = concat(place, ".data");
  if (files) return files->read(url, param);
  throw ApiError({.code = "media_not_allowed", .param = param},
                 {.what = "a path of the Label Studio instance, whose address isn't known",
                  .got = concat("'", shown(url), "'"),
                  .hint = "start the server with --label-studio-url"});
}

// An object may be a list: several pictures are shown one after the other.
void add_parts(const LabelObject& object, const OrderedJson& data, const std::string& place,
               const LabelFiles* files, OrderedJson& parts) {
  if (object.kind == LabelObject::Kind::kText) {
    parts.push_back({{"type", "text"}, {"text", text_of_field(object.value, data, place)}});
    return;
  }
  const OrderedJson field = resolve_field(object.value, data, place);
  const OrderedJson list = field.is_array() ? field : OrderedJson::array({field});
  for (const OrderedJson& url : list) {
    if (!url.is_string()) {
      throw bad_value(concat(place, ".data.", shown(object.value)), url, "an address");
    }
    const char* type = object.kind == LabelObject::Kind::kClip ? "video_url" : "image_url";
    parts.push_back({{"type", type}, {type, {{"url", media_url(url, place, files)}}}});
  }
}

// A list of texts, or of objects with "value" and perhaps "alias".
std::vector<LabelChoice> read_dynamic_choices(const OrderedJson& list, const std::string& param) {
  std::vector<LabelChoice> choices;
  if (!list.is_array()) throw bad_value(param, list, "a list of choices");
  for (const OrderedJson& one : list) {
    const bool is_object = one.is_object() && one.contains("value") && one["value"].is_string();
    if (!one.is_string() && !is_object) throw bad_value(param, one, "a text, or {\"value\": text}");
    const std::string value = is_object ? one["value"] : one;
    const bool has_alias = is_object && one.contains("alias") && one["alias"].is_string();
    choices.push_back(
        {.value = value, .result = has_alias ? one["alias"].get<std::string>() : value});
  }
  return choices;
}

std::vector<LabelChoice> choices_of(const LabelControl& control, const OrderedJson& data,
                                    const std::string& place) {
  if (control.choices_value.empty()) return control.choices;
  const OrderedJson list = resolve_field(control.choices_value, data, place);
  return read_dynamic_choices(list,
                              concat(place, ".data.", shown(control.choices_value.substr(1))));
}

std::vector<std::string> values_of(const std::vector<LabelChoice>& choices) {
  std::vector<std::string> values;
  for (const LabelChoice& choice : choices) values.push_back(choice.value);
  return values;
}

// Where neither the config nor the data asks anything.
std::string plain_question(const LabelControl& control, const std::vector<LabelChoice>& choices) {
  if (control.kind == LabelControl::Kind::kTextArea) return "Describe the image.";
  return concat("Which of these fits best: ", join(values_of(choices), ", "), "?");
}

}  // namespace

PredictRequest read_predict_request(const OrderedJson& body) {
  BodyReader reader(body, "");
  const auto xml = reader.text("label_config", kMostConfigBytes);
  if (!xml) throw missing_value("label_config", "the project's labelling config");
  const OrderedJson* tasks = reader.array("tasks");
  if (!tasks || tasks->size() > kMostTasks) {
    throw bad_value("tasks", concat(tasks ? tasks->size() : 0, " tasks"),
                    concat("a list of up to ", kMostTasks));
  }
  return {.config = parse_label_config(*xml, "label_config"),
          .tasks = std::vector<OrderedJson>(tasks->begin(), tasks->end())};
}

LabelQuestion make_label_question(const LabelConfig& config, const LabelControl& control,
                                  const OrderedJson& task, const std::string& place,
                                  const LabelFiles* files) {
  if (!task.is_object() || !task.contains("data") || !task["data"].is_object()) {
    throw bad_value(place, task, "a task with data");
  }
  const OrderedJson& data = task["data"];
  LabelQuestion question;
  OrderedJson parts = OrderedJson::array();
  bool has_text = false;
  for (const LabelObject& object : config.objects) {
    add_parts(object, data, place, files, parts);
    has_text = has_text || object.kind == LabelObject::Kind::kText;
  }
  question.body["max_tokens"] = control.max_tokens;
  question.body["vlm"] = {{"confidence", true}};
  if (control.kind == LabelControl::Kind::kChoices) {
    question.choices = choices_of(control, data, place);
    question.body["structured_outputs"] = {{"choice", values_of(question.choices)}};
  } else if (!control.pattern.empty()) {
    question.body["structured_outputs"] = {{"regex", control.pattern}};
  }
  std::string text = control.question.empty() ? "" : text_of_field(control.question, data, place);
  if (text.empty() && !has_text) text = plain_question(control, question.choices);
  if (!text.empty()) parts.push_back({{"type", "text"}, {"text", text}});
  question.body["messages"] = OrderedJson::array({{{"role", "user"}, {"content", parts}}});
  return question;
}

Label read_label(const LabelControl& control, const std::vector<LabelChoice>& choices,
                 const WebReply& reply) {
  if (reply.status != 200) return {.error = concat(control.name, ": ", message_of(reply))};
  const OrderedJson body = OrderedJson::parse(reply.body);
  const OrderedJson& choice = body["choices"][0];
  const std::string text = choice["message"]["content"];
  Label label{.prompt_tokens = body["usage"]["prompt_tokens"],
              .completion_tokens = body["usage"]["completion_tokens"]};
  const bool is_choices = control.kind == LabelControl::Kind::kChoices;
  OrderedJson value;
  if (is_choices) {
    const auto chosen = std::find_if(choices.begin(), choices.end(),
                                     [&](const LabelChoice& one) { return one.value == text; });
    value = {{"choices", {chosen->result}}};
    label.score = body["vlm"]["probabilities"][text];
  } else if (choice["finish_reason"] != "stop") {
    label.error = concat(control.name, ": the text was cut after ", label.completion_tokens,
                         " tokens; model_max_tokens allows more");
    return label;
  } else {
    value = {{"text", {text}}};
    label.score = std::exp(body["vlm"].value("mean_logprob", 0.0));
  }
  label.score = std::clamp(label.score, 0.0, 1.0);
  label.region = {{"id", random_hex(10)},       {"from_name", control.name},
                  {"to_name", control.to_name}, {"type", is_choices ? "choices" : "textarea"},
                  {"value", std::move(value)},  {"score", label.score}};
  return label;
}

OrderedJson to_prediction(const std::vector<Label>& labels, const std::string& model_version) {
  OrderedJson result = OrderedJson::array();
  double score = 1;
  std::vector<std::string> errors;
  for (const Label& label : labels) {
    score = std::min(score, label.region ? label.score : 0.0);
    if (label.region) result.push_back(*label.region);
    if (!label.error.empty()) errors.push_back(label.error);
  }
  OrderedJson prediction = {
      {"model_version", model_version}, {"score", score}, {"result", std::move(result)}};
  if (!errors.empty()) prediction["error"] = join(errors, "; ");
  return prediction;
}

}  // namespace vlm::infer
