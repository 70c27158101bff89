// Values of Arrow arrays → JSON, by the rules of the `datasets` library.
//
//   schema ─► read_features ─► Feature: the column types in the "huggingface" metadata
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
  std::vector<std::string> names;         // of a ClassLabel: the name of each number
  std::map<std::string, Feature> fields;  // of a dictionary: its values
  std::shared_ptr<const Feature> items;   // of a list: its items
};

// The features of all columns. Empty when the metadata is missing or can't be read; then values are
// given as they are stored.
Feature read_features(const arrow::Schema& schema);

// `feature` may be null. Throws std::runtime_error for a type that JSON can't hold.
nlohmann::json to_json(const arrow::Array& array, std::int64_t index, const Feature* feature);

}  // namespace vlm::data
