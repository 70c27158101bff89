// DocTags, the answers of document models, → a tree.
//
//   "<doctag><text><loc_1>…Hello</text>…</doctag>" ─► parse_doctags ─► DocNode
//
// Never throws: an answer may be cut off anywhere or be wrong, so what isn't closed is closed where
// something begins that can't stand inside, and at the end. Places (<loc_N>) and special tokens of
// the chat (<|…|>) are dropped; every other unknown <…> is text. Reference: the tokens of
// docling_core.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "infer/doctags/table.h"

namespace vlm::infer {

struct DocNode {
  // The tag's name. Headings are "section_header" with a level; text outside all tags is "text".
  std::string tag;
  int level = 0;         // of a heading, from 1; -1: text that stood outside of tags
  std::string text;      // what stands directly in it, before all children; trimmed
  std::string language;  // of code; may be empty
  DocTable table;        // of "otsl" and "chart"
  std::vector<DocNode> children = {};
};

// Whether the parts of an "inline" node are texts, formulas and code, which one line can hold.
bool is_one_line(const DocNode& node);

// The root's tag is "doctag".
DocNode parse_doctags(std::string_view text);

// The first heading's text or the title; empty: there is none.
std::string find_title(const DocNode& root);

}  // namespace vlm::infer
