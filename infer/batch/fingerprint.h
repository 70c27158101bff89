// What rows depend on, as option → value: kept in the journal, compared when a run goes on.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vlm/core/json.h"

namespace vlm::infer {

// {"name", "digest"} of a model or adapter folder. The digest covers every byte of
// weights, configuration and tokenizer (a sample would not tell a fine-tuned model from its base),
// read on all threads; it doesn't depend on the folder's place or on file times.
OrderedJson identify_folder(const std::string& name, const std::filesystem::path& folder);

struct OptionChange {
  std::vector<std::string> names;  // of the options that differ
  std::string got, wanted;         // of the first of them: now and before
  bool is_fatal = false;           // rows of before and rows of now can't stand in one output
};

// Other inputs and another format are fatal. Of identify_folder's values only the digests count.
OptionChange compare(const OrderedJson& before, const OrderedJson& now);

}  // namespace vlm::infer
