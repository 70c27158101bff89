// Values of Arrow arrays → JSON, as the `datasets` library means them.
//
//   schema ─► Features: what the "huggingface" metadata says of the columns
//   array, i ─► to_json ─► text, number, list, object, bytes or null
#pragma once

#include <arrow/type_fwd.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vlm::data {

// The feature of a column, with those of nested values.
struct Feature {
  std::vector<std::string> names;         // of a ClassLabel, by its number
  std::map<std::string, Feature> fields;  // of a dictionary
  std::shared_ptr<const Feature> items;   // of a list
};

// The features of all columns. Empty when the metadata is missing or can't be read; values are then
// read as they are stored.
Feature read_features(const arrow::Schema& schema);

// `feature` may be null. Throws std::runtime_error for a type that JSON can't hold.
nlohmann::json to_json(const arrow::Array& array, std::int64_t index, const Feature* feature);

}  // namespace vlm::data
