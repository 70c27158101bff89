#include "infer/doctags/markdown.h"

#include <algorithm>

#include "infer/doctags/text.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kListIndent = 4;

// Blocks, with one empty line between them.
void append_block(std::string& blocks, const std::string& block) {
  if (block.empty()) return;
  if (!blocks.empty()) blocks += "\n\n";
  blocks += block;
}

std::string markdown_escaped(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool is_entity = c == '&' && text.find(';', i) != std::string::npos;
    if (is_entity || std::string_view("\\`*_[]<").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

// A line that would begin a heading, a quotation, a list or a rule is made plain.
std::string paragraph(const std::string& text) {
  std::string line = markdown_escaped(one_line(text));
  if (line.empty()) return line;
  const std::size_t digits = line.find_first_not_of("0123456789");
  const bool is_number = digits != 0 && digits != std::string::npos && digits < 10 &&
                         (line[digits] == '.' || line[digits] == ')') &&
                         (digits + 1 == line.size() || line[digits + 1] == ' ');
  if (is_number) return line.insert(digits, "\\");
  if (std::string_view("#>+-=~|").find(line[0]) != std::string_view::npos) line.insert(0, "\\");
  return line;
}

std::string code_block(const DocNode& node) {
  std::size_t longest = 0, run = 0;
  for (const char c : node.text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<std::size_t>(3, longest + 1), '`');
  std::string language = ascii_lower(node.language);
  if (language == "unknown") language.clear();
  return fence + language + "\n" + node.text + "\n" + fence;
}

std::string table_block(const DocTable& table) {
  std::string text;
  const auto grid = table.grid();
  for (std::size_t row = 0; row < grid.size(); ++row) {
    text += row > 0 ? "\n|" : "|";
    for (const std::string& cell : grid[row]) {
      std::string inside = markdown_escaped(one_line(cell));
      for (std::size_t at = 0; (at = inside.find('|', at)) != std::string::npos; at += 2) {
        inside.insert(at, "\\");
      }
      text += " " + inside + (inside.empty() ? "|" : " |");
    }
    if (row > 0) continue;  // the first row is the header: Markdown knows no table without
    text += "\n|";
    for (std::size_t i = 0; i < grid[0].size(); ++i) text += " --- |";
  }
  return text;
}

class MarkdownWriter {
 public:
  std::string blocks(const std::vector<DocNode>& nodes) {
    std::string text;
    for (const DocNode& node : nodes) append_block(text, block(node));
    return text;
  }

 private:
  std::string block(const DocNode& node) {
    const std::string& tag = node.tag;
    if (tag == "page_header" || tag == "page_footer") return "";
    if (tag == "page_break") return "---";
    if (tag == "title")
      return node.text.empty() ? "" : "# " + markdown_escaped(one_line(node.text));
    if (tag == "section_header") return heading(node);
    if (tag == "code") return node.text.empty() ? "" : code_block(node);
    if (tag == "formula") return node.text.empty() ? "" : "$$" + node.text + "$$";
    if (tag == "checkbox_selected") return "- [x] " + markdown_escaped(one_line(node.text));
    if (tag == "checkbox_unselected") return "- [ ] " + markdown_escaped(one_line(node.text));
    if (tag == "ordered_list" || tag == "unordered_list") return list(node);
    if (tag == "list_item") return item(node, "- ");
    if (tag == "inline" && is_one_line(node)) return inline_text(node);
    if (tag == "picture") {
      std::string text = blocks(node.children);
      append_block(text, "<!-- image -->");
      return text;
    }
    std::string text = paragraph(node.text);
    append_block(text, blocks(node.children));
    if (!node.table.is_empty()) append_block(text, table_block(node.table));
    return text;
  }

  static std::string heading(const DocNode& node) {
    if (node.text.empty()) return "";
    const int level = std::min(node.level + 1, 6);  // the title has the first
    return std::string(static_cast<std::size_t>(level), '#') + " " +
           markdown_escaped(one_line(node.text));
  }

  // Parts of one line.
  static std::string inline_text(const DocNode& node) {
    std::string text;
    for (const DocNode& part : node.children) {
      if (part.text.empty()) continue;
      if (!text.empty()) text += ' ';
      if (part.tag == "formula") {
        text += "$" + one_line(part.text) + "$";
      } else if (part.tag == "code") {
        text += "`" + one_line(part.text) + "`";
      } else {
        text += markdown_escaped(one_line(part.text));
      }
    }
    return text;
  }

  std::string list(const DocNode& node) {
    const bool is_ordered = node.tag == "ordered_list";
    std::string text;
    int number = 0;
    for (const DocNode& child : node.children) {
      const bool is_item = child.tag == "list_item";
      std::string marker = "- ";
      if (is_item && is_ordered) {
        ++number;
        const std::string own = item_number(child.text);
        marker = (own.empty() ? concat(number) : own) + ". ";
      }
      const std::string lines = is_item ? item(child, marker) : indented(block(child));
      if (lines.empty()) continue;
      if (!text.empty()) text += '\n';
      text += lines;
    }
    return text;
  }

  std::string item(const DocNode& node, const std::string& marker) {
    std::string text = marker + paragraph(without_marker(node.text, marker != "- "));
    for (const DocNode& child : node.children) {
      const std::string inside = block(child);
      if (inside.empty()) continue;
      const bool is_list = child.tag == "ordered_list" || child.tag == "unordered_list";
      text += (is_list ? "\n" : "\n\n") + indented(inside);
    }
    return text;
  }

  static std::string indented(const std::string& text) {
    std::string result;
    bool begins_line = true;
    for (const char c : text) {
      if (begins_line && c != '\n') result.append(kListIndent, ' ');
      result += c;
      begins_line = c == '\n';
    }
    return result;
  }
};

}  // namespace

std::string to_markdown(const DocNode& document) {
  return MarkdownWriter().blocks(document.children);
}

}  // namespace vlm::infer
