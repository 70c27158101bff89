// Small pieces that writers of documents and pages need.
#pragma once

#include <string>

namespace vlm::infer {

// Without space around it, and with one space for every run of white space.
std::string one_line(const std::string& text);

// An item's text without the bullet, or of an ordered list the number, that the page shows in
// front.
std::string without_marker(const std::string& text, bool is_ordered);

// The number in front of an ordered item's text ("3" of "3) three"); empty: there is none.
std::string item_number(const std::string& text);

// With entities in place of what HTML reads as markup.
std::string html_escaped(const std::string& text);

}  // namespace vlm::infer
