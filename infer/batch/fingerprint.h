// The values that rows depend on (model, adapter, options). They are stored in the journal and
// compared when a run goes on, so that rows of two models never mix unnoticed.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vlm/core/json.h"

namespace vlm::infer {

// {"name", "digest"} of a model or adapter folder. The digest covers every byte of weights,
// configuration and tokenizer: part of them would not tell a fine-tuned model from its base. It is
// computed on all threads and doesn't depend on the folder's path or on file times.
OrderedJson identify_folder(const std::string& name, const std::filesystem::path& folder);

struct OptionChange {
  std::vector<std::string> names;  // of the options that differ
  std::string got, wanted;         // values of the first of them, now and before
  bool is_fatal = false;           // old and new rows can't stand in one output
};

// Changed inputs and a changed format are fatal. Of models only the digests are compared.
OptionChange compare(const OrderedJson& before, const OrderedJson& now);

}  // namespace vlm::infer
