// The labelling config of a Label Studio project → what the model can be asked for it.
//
//   XML ─► parse_label_config ─► LabelConfig: what is shown, what is asked, what is left out
//
// Shown are the tags Image, Video, Text and HyperText, asked are Choices and TextArea. Attributes
// of these two that begin with model_ are for the model, as for Label Studio's own backends:
// model_question, model_pattern (a regular expression that the text keeps), model_max_tokens and
// model_skip="true". Without model_question the Header in front of the tag is asked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vlm::infer {

// `value` is a text as it is, or "$name" of a field of a task's data.
struct LabelObject {
  enum class Kind { kPicture, kClip, kText };
  Kind kind = Kind::kPicture;
  std::string name, value;
};

struct LabelChoice {
  std::string value;
  std::string result;  // what stands in a prediction: the alias, where there is one
};

struct LabelControl {
  enum class Kind { kChoices, kTextArea };
  Kind kind = Kind::kChoices;
  std::string name, to_name;
  std::vector<LabelChoice> choices;
  std::string choices_value;  // "$name" of a field with the choices, in place of those
  std::string question;       // as value of LabelObject; empty: there is none
  std::string pattern;        // of a text; empty: any
  std::int64_t max_tokens = 256;
};

struct LabelConfig {
  std::vector<LabelObject> objects;    // in their order
  std::vector<LabelControl> controls;  // never empty
  std::vector<std::string> left_out;   // "RectangleLabels 'box': why"
};

// Throws ApiError naming `param` for XML that can't be read, and where nothing can be asked.
LabelConfig parse_label_config(const std::string& xml, const std::string& param);

}  // namespace vlm::infer
