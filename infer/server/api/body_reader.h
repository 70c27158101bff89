// The fields of a JSON object, each read once, with its type and range checked.
//
//   object ─► BodyReader: integer("n", 1, 8) … ─► values; rest() ─► names that nobody asked for
//
// Absent and null are the same. Everything throws ApiError naming the field.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "infer/server/api/api_error.h"
#include "vlm/core/json.h"

namespace vlm::infer {

// The body of a request as JSON: an object, nested at most 64 levels, no key twice.
OrderedJson parse_body(std::string_view body);

class BodyReader {
 public:
  // `place` is the path of the object itself; empty for the body.
  BodyReader(const OrderedJson& object, std::string place);

  // The value, or null when it is absent.
  const OrderedJson* find(const std::string& name);
  std::string path(const std::string& name) const;

  std::optional<bool> boolean(const std::string& name);
  std::optional<std::int64_t> integer(const std::string& name, std::int64_t least,
                                      std::int64_t most);
  std::optional<double> number(const std::string& name, double least, double most);
  std::optional<std::string> text(const std::string& name, std::size_t most_bytes);
  const OrderedJson* object(const std::string& name);
  const OrderedJson* array(const std::string& name);
  // A text or a list of at most `most` texts, none empty.
  std::vector<std::string> texts(const std::string& name, std::size_t most);

  // Marks fields as known, whatever they hold.
  void accept(const std::vector<std::string>& names);
  // Names of the fields that were not asked for and aren't null.
  std::vector<std::string> rest() const;
  // Every name that was asked for.
  const std::set<std::string>& known() const { return known_; }

 private:
  const OrderedJson& object_;
  std::string place_;
  std::set<std::string> known_;
};

}  // namespace vlm::infer
