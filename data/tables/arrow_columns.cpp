#include "data/tables/arrow_columns.h"

#include <arrow/api.h>
#include <arrow/util/float16.h>

#include <charconv>
#include <stdexcept>

namespace vlm::data {
namespace {

using Json = nlohmann::json;

Feature parse_feature(const Json& text);

std::shared_ptr<const Feature> parse_items(const Json& text) {
  return std::make_shared<Feature>(parse_feature(text));
}

// {"_type": "ClassLabel", "names": […]}, {"_type": "List", "feature": …} (older: "Sequence"),
// [feature], or a dictionary of features.
Feature parse_feature(const Json& text) {
  Feature feature;
  if (text.is_array()) {
    if (text.size() == 1) feature.items = parse_items(text[0]);
    return feature;
  }
  if (!text.is_object()) return feature;
  const auto type = text.find("_type");
  if (type == text.end() || !type->is_string()) {
    for (const auto& [name, field] : text.items()) feature.fields[name] = parse_feature(field);
    return feature;
  }
  if (*type == "ClassLabel" && text.contains("names") && text["names"].is_array()) {
    for (const Json& name : text["names"]) {
      feature.names.push_back(name.is_string() ? name.get<std::string>() : name.dump());
    }
  }
  if (text.contains("feature")) feature.items = parse_items(text["feature"]);
  return feature;
}

// As short as the number's own precision allows: 0.1 stays 0.1 although it was 32 bits.
template <typename Float>
Json shortest(Float value) {
  char text[64];
  const auto written = std::to_chars(text, text + sizeof text, value);
  double wide = 0;
  std::from_chars(text, written.ptr, wide);
  return wide;
}

Json list_json(const arrow::Array& values, std::int64_t begin, std::int64_t size,
               const Feature* feature) {
  Json list = Json::array();
  for (std::int64_t i = begin; i < begin + size; ++i) list.push_back(to_json(values, i, feature));
  return list;
}

template <typename List>
Json list_of(const arrow::Array& array, std::int64_t index, const Feature* feature) {
  const auto& list = static_cast<const List&>(array);
  return list_json(*list.values(), list.value_offset(index), list.value_length(index),
                   feature ? feature->items.get() : nullptr);
}

// A Sequence of dictionaries is stored as a dictionary of lists: given back as a list of objects.
Json transposed(const Json& lists) {
  Json objects = Json::array();
  for (const auto& [name, list] : lists.items()) {
    if (!list.is_array()) return lists;
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (objects.size() <= i) objects.push_back(Json::object());
      objects[i][name] = list[i];
    }
  }
  return objects;
}

Json struct_json(const arrow::StructArray& array, std::int64_t index, const Feature* feature) {
  const bool is_sequence = feature && feature->items && !feature->items->fields.empty();
  const Feature* inside = is_sequence ? feature->items.get() : feature;
  Json object = Json::object();
  for (int i = 0; i < array.num_fields(); ++i) {
    const std::string& name = array.struct_type()->field(i)->name();
    const Feature* field = nullptr;
    Feature of_list;
    if (inside && inside->fields.count(name) > 0) {
      field = &inside->fields.at(name);
      if (is_sequence) {
        of_list.items = std::make_shared<Feature>(*field);
        field = &of_list;
      }
    }
    object[name] = to_json(*array.field(i), index, field);
  }
  return is_sequence ? transposed(object) : object;
}

Json map_json(const arrow::MapArray& array, std::int64_t index) {
  Json object = Json::object();
  for (std::int64_t i = array.value_offset(index);
       i < array.value_offset(index) + array.value_length(index); ++i) {
    const Json key = to_json(*array.keys(), i, nullptr);
    object[key.is_string() ? key.get<std::string>() : key.dump()] =
        to_json(*array.items(), i, nullptr);
  }
  return object;
}

// Dates, times, decimals and the like, as Arrow writes them.
Json written(const arrow::Array& array, std::int64_t index) {
  const auto scalar = array.GetScalar(index);
  if (!scalar.ok()) throw std::runtime_error(scalar.status().ToString());
  return (*scalar)->ToString();
}

template <typename Array>
Json text_of(const arrow::Array& array, std::int64_t index) {
  return std::string(static_cast<const Array&>(array).GetView(index));
}

template <typename Array>
Json bytes_of(const arrow::Array& array, std::int64_t index) {
  const std::string_view bytes = static_cast<const Array&>(array).GetView(index);
  return Json::binary(std::vector<std::uint8_t>(bytes.begin(), bytes.end()));
}

template <typename Array>
Json number_of(const arrow::Array& array, std::int64_t index) {
  return static_cast<const Array&>(array).Value(index);
}

// A ClassLabel's name; −1 stands for "no label".
Json label_of(const Json& number, const Feature& feature) {
  const std::int64_t label = number.get<std::int64_t>();
  if (label == -1) return nullptr;
  if (label < 0 || label >= static_cast<std::int64_t>(feature.names.size())) {
    throw std::runtime_error("label " + std::to_string(label) + " has no name among " +
                             std::to_string(feature.names.size()));
  }
  return feature.names[static_cast<std::size_t>(label)];
}

Json plain_json(const arrow::Array& array, std::int64_t index, const Feature* feature) {
  using arrow::Type;
  switch (array.type_id()) {
    case Type::BOOL:
      return static_cast<const arrow::BooleanArray&>(array).Value(index);
    case Type::UINT8:
      return number_of<arrow::UInt8Array>(array, index);
    case Type::INT8:
      return number_of<arrow::Int8Array>(array, index);
    case Type::UINT16:
      return number_of<arrow::UInt16Array>(array, index);
    case Type::INT16:
      return number_of<arrow::Int16Array>(array, index);
    case Type::UINT32:
      return number_of<arrow::UInt32Array>(array, index);
    case Type::INT32:
      return number_of<arrow::Int32Array>(array, index);
    case Type::UINT64:
      return number_of<arrow::UInt64Array>(array, index);
    case Type::INT64:
      return number_of<arrow::Int64Array>(array, index);
    case Type::HALF_FLOAT:
      return shortest(arrow::util::Float16::FromBits(
                          static_cast<const arrow::HalfFloatArray&>(array).Value(index))
                          .ToFloat());
    case Type::FLOAT:
      return shortest(static_cast<const arrow::FloatArray&>(array).Value(index));
    case Type::DOUBLE:
      return number_of<arrow::DoubleArray>(array, index);
    case Type::STRING:
      return text_of<arrow::StringArray>(array, index);
    case Type::LARGE_STRING:
      return text_of<arrow::LargeStringArray>(array, index);
    case Type::STRING_VIEW:
      return text_of<arrow::StringViewArray>(array, index);
    case Type::BINARY:
      return bytes_of<arrow::BinaryArray>(array, index);
    case Type::LARGE_BINARY:
      return bytes_of<arrow::LargeBinaryArray>(array, index);
    case Type::BINARY_VIEW:
      return bytes_of<arrow::BinaryViewArray>(array, index);
    case Type::FIXED_SIZE_BINARY:
      return bytes_of<arrow::FixedSizeBinaryArray>(array, index);
    case Type::LIST:
      return list_of<arrow::ListArray>(array, index, feature);
    case Type::LARGE_LIST:
      return list_of<arrow::LargeListArray>(array, index, feature);
    case Type::FIXED_SIZE_LIST:
      return list_of<arrow::FixedSizeListArray>(array, index, feature);
    case Type::MAP:
      return map_json(static_cast<const arrow::MapArray&>(array), index);
    case Type::STRUCT:
      return struct_json(static_cast<const arrow::StructArray&>(array), index, feature);
    case Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return to_json(*coded.dictionary(), coded.GetValueIndex(index), feature);
    }
    case Type::EXTENSION:
      return to_json(*static_cast<const arrow::ExtensionArray&>(array).storage(), index, feature);
    case Type::DECIMAL32:
    case Type::DECIMAL64:
    case Type::DECIMAL128:
    case Type::DECIMAL256:
    case Type::DATE32:
    case Type::DATE64:
    case Type::TIME32:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DURATION:
      return written(array, index);
    default:
      throw std::runtime_error("columns of the type " + array.type()->ToString() +
                               " can't be read");
  }
}

}  // namespace

Feature read_features(const arrow::Schema& schema) {
  if (!schema.metadata()) return {};
  const auto text = schema.metadata()->Get("huggingface");
  if (!text.ok()) return {};
  const Json metadata = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!metadata.is_object() || !metadata.contains("info")) return {};
  const Json& info = metadata["info"];
  if (!info.is_object() || !info.contains("features")) return {};
  return parse_feature(info["features"]);
}

Json to_json(const arrow::Array& array, std::int64_t index, const Feature* feature) {
  if (array.type_id() == arrow::Type::NA || array.IsNull(index)) return nullptr;
  Json value = plain_json(array, index, feature);
  if (feature && !feature->names.empty() && value.is_number_integer()) {
    return label_of(value, *feature);
  }
  return value;
}

}  // namespace vlm::data
