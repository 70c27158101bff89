// A small XML document → its elements, for configs that other programs send.
//
//   text ─► read_xml ─► XmlElement: name, attributes, children
//
// Text between the tags is passed over. The library (expat) loads and expands nothing here: a
// document type is refused, and with it every entity but XML's own five. Size, depth and number of
// elements are bounded.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vlm::infer {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes = {};
  std::vector<XmlElement> children = {};

  // "" when it is missing.
  const std::string& attribute(const std::string& attribute_name) const;
};

// Throws Error, with the line where it went wrong.
XmlElement read_xml(std::string_view text);

}  // namespace vlm::infer
