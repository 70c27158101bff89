#include "infer/doctags/html.h"

#include <algorithm>
#include <map>

#include "infer/doctags/text.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

std::string element(const std::string& name, const std::string& inside,
                    const std::string& attributes = "") {
  return concat("<", name, attributes, ">", inside, "</", name, ">\n");
}

std::string cell_element(const TableCell& cell) {
  std::string attributes;
  if (cell.columns > 1) attributes += concat(" colspan=\"", cell.columns, "\"");
  if (cell.rows > 1) attributes += concat(" rowspan=\"", cell.rows, "\"");
  if (!cell.scope.empty()) attributes += concat(" scope=\"", cell.scope, "\"");
  std::string text =
      element(cell.scope.empty() ? "td" : "th", html_escaped(one_line(cell.text)), attributes);
  text.pop_back();
  return text;
}

std::string rows_of(const DocTable& table) {
  std::string rows;
  for (const auto& row : table.cells()) {
    std::string cells;
    for (const TableCell& cell : row) cells += cell_element(cell);
    rows += element("tr", cells);
  }
  return rows;
}

class HtmlWriter {
 public:
  std::string blocks(const std::vector<DocNode>& nodes) const {
    std::string text;
    for (const DocNode& node : nodes) text += block(node);
    return text;
  }

 private:
  std::string block(const DocNode& node) const {
    static const std::map<std::string, std::string> kElements = {
        {"text", "p"},   {"paragraph", "p"},        {"caption", "p"},
        {"title", "h1"}, {"page_header", "header"}, {"page_footer", "footer"}};
    if (node.tag == "page_break") return "<hr>\n";
    if (node.tag == "section_header") {
      return element(concat("h", std::min(node.level + 1, 6)), line_of(node));
    }
    if (node.tag == "code") return code(node);
    if (node.tag == "formula") return element("p", "\\[" + html_escaped(node.text) + "\\]");
    if (node.tag == "footnote") return element("p", line_of(node), " class=\"footnote\"");
    if (node.tag.starts_with("checkbox_")) return checkbox(node);
    if (node.tag == "ordered_list" || node.tag == "unordered_list") return list(node);
    if (node.tag == "list_item") return item(node, /*is_ordered=*/false);
    if (node.tag == "inline" && is_one_line(node)) return element("p", inline_text(node));
    if (node.tag == "picture") return figure(node);
    if (!node.table.is_empty() || node.tag == "otsl") return table(node);
    const auto found = kElements.find(node.tag);
    const std::string inside = line_of(node) + blocks(node.children);
    if (inside.empty()) return "";
    return found != kElements.end() ? element(found->second, inside) : inside;
  }

  static std::string line_of(const DocNode& node) { return html_escaped(one_line(node.text)); }

  static std::string code(const DocNode& node) {
    const bool is_named = !node.language.empty() && node.language != "unknown";
    std::string inside =
        element("code", html_escaped(node.text),
                is_named ? concat(" class=\"language-", html_escaped(node.language), "\"") : "");
    inside.pop_back();
    return element("pre", inside);
  }

  static std::string checkbox(const DocNode& node) {
    const bool is_selected = node.tag == "checkbox_selected";
    return element("p", concat("<input type=\"checkbox\" disabled", is_selected ? " checked" : "",
                               "> ", line_of(node)));
  }

  std::string list(const DocNode& node) const {
    const bool is_ordered = node.tag == "ordered_list";
    std::string items;
    for (const DocNode& child : node.children) {
      items += child.tag == "list_item" ? item(child, is_ordered) : element("li", block(child));
    }
    return items.empty() ? "" : element(is_ordered ? "ol" : "ul", "\n" + items);
  }

  std::string item(const DocNode& node, bool is_ordered) const {
    const std::string own = is_ordered ? item_number(node.text) : "";
    return element(
        "li", html_escaped(one_line(without_marker(node.text, is_ordered))) + blocks(node.children),
        own.empty() ? "" : concat(" value=\"", own, "\""));
  }

  static std::string inline_text(const DocNode& node) {
    std::string text;
    for (const DocNode& part : node.children) {
      if (!text.empty()) text += ' ';
      const std::string inside = line_of(part);
      text += part.tag == "formula" ? "\\(" + inside + "\\)"
              : part.tag == "code"  ? "<code>" + inside + "</code>"
                                    : inside;
    }
    return text;
  }

  // The caption under its own element, and the rest.
  std::string figure(const DocNode& node) const {
    std::string captions, others;
    for (const DocNode& child : node.children) {
      const bool is_caption = child.tag == "caption";
      (is_caption ? captions : others) += is_caption ? line_of(child) : block(child);
    }
    if (!captions.empty()) captions = element("figcaption", captions);
    return element("figure", line_of(node) + others + captions);
  }

  std::string table(const DocNode& node) const {
    std::string captions, others;
    for (const DocNode& child : node.children) {
      const bool is_caption = child.tag == "caption";
      (is_caption ? captions : others) += is_caption ? line_of(child) : block(child);
    }
    if (!captions.empty()) captions = element("caption", captions);
    return element("table", "\n" + captions + rows_of(node.table)) + others;
  }
};

}  // namespace

std::string to_html(const DocNode& document) {
  const std::string title = one_line(find_title(document));
  return concat("<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>",
                html_escaped(title), "</title></head>\n<body>\n",
                HtmlWriter().blocks(document.children), "</body>\n</html>");
}

}  // namespace vlm::infer
