// tokenizer.json's "post_processor": the special tokens around the ids of a text.
//
// Supported: none, ByteLevel (which only moves offsets, so it does nothing here),
// TemplateProcessing for a single text, and Sequence; others are an Error that names them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

class PostProcessor {
 public:
  // `json` is the component, or null for none. Throws Error.
  PostProcessor(const Json* json, const std::string& where);

  // `ids` with what the templates put before and after.
  std::vector<std::int64_t> apply(std::vector<std::int64_t> ids) const;

 private:
  // A part of a template: ids to put in, or the place of the text.
  struct Part {
    bool is_text = false;
    std::vector<std::int64_t> ids = {};
  };

  void add_steps(const Json& json, const std::string& where);
  void add_template(const Json& json, const std::string& where);

  std::vector<std::vector<Part>> templates_;
};

}  // namespace vlm
