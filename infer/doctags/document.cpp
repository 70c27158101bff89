#include "infer/doctags/document.h"

#include <algorithm>
#include <set>

#include "vlm/core/ascii.h"

namespace vlm::infer {
namespace {

using TagNames = std::set<std::string, std::less<>>;

const TagNames kLists = {"ordered_list", "unordered_list"};
// What may hold blocks.
const TagNames kContainers = {"doctag",     "ordered_list", "unordered_list",  "list_item",
                              "group",      "inline",       "picture",         "chart",
                              "references", "form",         "key_value_region"};
const TagNames kTables = {"otsl", "chart", "document_index"};
const TagNames kLeaves = {"text",
                          "paragraph",
                          "title",
                          "section_header",
                          "caption",
                          "footnote",
                          "formula",
                          "code",
                          "smiles",
                          "page_header",
                          "page_footer",
                          "checkbox_selected",
                          "checkbox_unselected",
                          "page_break"};
const TagNames kCells = {"fcel", "ecel", "lcel", "ucel", "xcel", "ched", "rhed", "srow"};
// These stand on the page itself, whatever was left open before.
const TagNames kOnPage = {"title", "section_header", "page_header", "page_footer", "page_break"};
// Special tokens of the model family that stand for nothing in a document.
const TagNames kDropped = {"end_of_utterance", "image", "fake_token_around_image", "global-img"};

bool is_among(const TagNames& names, std::string_view name) {
  return names.find(name) != names.end();
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

// "<name>" or "</name>" at the beginning of the text.
struct DocTag {
  std::string name;
  bool is_end = false;
  std::size_t length = 0;  // 0: there is no tag
};

DocTag read_tag(std::string_view text) {
  constexpr std::size_t kLongest = 64;
  const std::size_t end = text.substr(0, kLongest).find('>');
  if (end == std::string_view::npos) return {};
  std::string_view name = text.substr(1, end - 1);
  const bool is_end = name.starts_with('/');
  if (is_end) name.remove_prefix(1);
  const auto is_part = [](char c) {
    return is_letter(c) || is_digit(c) ||
           std::string_view("_-|+#").find(c) != std::string_view::npos;
  };
  if (name.empty() || !std::all_of(name.begin(), name.end(), is_part)) return {};
  return {.name = std::string(name), .is_end = is_end, .length = end + 1};
}

class DocParser {
 public:
  DocParser() { open_.push_back({.tag = "doctag"}); }

  DocNode parse(std::string_view text) {
    while (!text.empty()) {
      const std::size_t next = text.find('<');
      add_text(text.substr(0, next));
      if (next == std::string_view::npos) break;
      text.remove_prefix(next);
      const DocTag tag = read_tag(text);
      const bool is_known = tag.length > 0 && take(tag);
      // A tag that the end of the answer has cut is no text.
      const bool is_cut = tag.length == 0 && text.find('>') == std::string_view::npos &&
                          text.size() > 1 && text.find_first_of(" \n") == std::string_view::npos &&
                          (text[1] == '/' || text[1] == '_' || is_letter(text[1]));
      if (is_cut) break;
      if (!is_known) add_text(text.substr(0, std::max<std::size_t>(tag.length, 1)));
      text.remove_prefix(std::max<std::size_t>(tag.length, 1));
    }
    while (open_.size() > 1) close();
    return std::move(open_.front());
  }

 private:
  DocNode& top() { return open_.back(); }

  bool in_table() const { return is_among(kTables, open_.back().tag); }

  // False: the tag means nothing here, and is text.
  bool take(const DocTag& tag) {
    std::string name = tag.name;
    int level = 0;
    if (name.starts_with("section_header_level_")) {
      const std::string digits = name.substr(name.rfind('_') + 1);
      if (digits.size() != 1 || !is_digits(digits)) return false;
      level = std::clamp(digits[0] - '0', 1, 6);
      name = "section_header";
    }
    if (is_dropped(tag)) return true;
    if (in_table() && take_in_table(tag)) return true;
    if (is_among(kCells, name) || name == "nl") return true;  // of no table
    const bool is_block =
        is_among(kContainers, name) || is_among(kTables, name) || is_among(kLeaves, name);
    if (!is_block) return take_label(name);
    if (tag.is_end) {
      close_to(name);
    } else if (name != "doctag") {
      open(std::move(name), level);
    }
    return true;
  }

  static bool is_dropped(const DocTag& tag) {
    const std::string& name = tag.name;
    return (name.starts_with("loc_") && is_digits(std::string_view(name).substr(4))) ||
           (name.starts_with('|') && name.ends_with('|')) || is_among(kDropped, name);
  }

  bool take_in_table(const DocTag& tag) {
    if (tag.name == "nl") {
      top().table.end_row();
    } else if (is_among(kCells, tag.name)) {
      if (!tag.is_end) top().table.add_slot(tag.name);
    } else if (tag.name == "formula") {
      top().table.add_text("$");
    } else {
      return tag.name == "text" || tag.name == "paragraph" || tag.name == "code";
    }
    return true;
  }

  // What a picture shows, the language of code, keys and values of a form.
  bool take_label(const std::string& name) {
    if (top().tag == "code" && name.size() > 2 && name.starts_with('_') && name.ends_with('_')) {
      top().language = name.substr(1, name.size() - 2);
      return true;
    }
    const auto is_numbered = [&](std::string_view prefix) {
      return name.starts_with(prefix) && is_digits(std::string_view(name).substr(prefix.size()));
    };
    return top().tag == "picture" || top().tag == "chart" || is_numbered("key_") ||
           is_numbered("value_") || is_numbered("link_") || is_numbered("rec_");
  }

  // Closes what can't hold the new node, and begins it.
  void open(std::string name, int level) {
    if (is_among(kOnPage, name)) {
      while (open_.size() > 1) close();
    }
    const auto can_hold = [&](const DocNode& node) {
      if (is_among(kTables, node.tag)) return name == "caption" || name == "otsl";
      if (node.tag == "list_item") return name != "list_item";
      if (node.tag == "picture") return name == "caption" || is_among(kTables, name);
      return is_among(kContainers, node.tag);
    };
    while (!can_hold(top())) close();
    const bool holds_nothing = name == "page_break";
    open_.push_back({.tag = std::move(name), .level = level});
    if (holds_nothing) close();
  }

  void close_to(const std::string& name) {
    const auto found = std::find_if(open_.rbegin(), open_.rend(),
                                    [&](const DocNode& node) { return node.tag == name; });
    if (found == open_.rend() || name == "doctag") return;  // it wasn't open
    const auto depth = static_cast<std::size_t>(open_.rend() - found);
    while (open_.size() >= depth) close();
  }

  void close() {
    DocNode node = std::move(open_.back());
    open_.pop_back();
    const auto begin = node.text.find_first_not_of("\r\n");
    node.text = node.tag == "code" && begin != std::string::npos
                    ? node.text.substr(begin, node.text.find_last_not_of(" \t\r\n") + 1 - begin)
                    : std::string(trimmed(node.text));
    top().children.push_back(std::move(node));
  }

  void add_text(std::string_view text) {
    if (text.empty()) return;
    if (in_table()) {
      const bool is_blank = text.find_first_not_of(" \t\r\n") == std::string_view::npos;
      if (!is_blank) top().table.add_text(text);
      return;
    }
    // Behind a child, or in what holds only blocks, text is a block of its own.
    const bool holds_text = !is_among(kContainers, top().tag) || top().tag == "list_item";
    if (holds_text && top().children.empty()) {
      top().text += text;
      return;
    }
    const bool is_blank = text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    const bool is_list = is_among(kLists, top().tag);
    auto& children = top().children;
    if (!children.empty() && children.back().level == kLoose) {
      children.back().text += std::string(text);  // pieces around an unknown tag
    } else if (!is_blank) {
      children.push_back(
          {.tag = is_list ? "list_item" : "text", .level = kLoose, .text = std::string(text)});
    }
  }

  static constexpr int kLoose = -1;  // text that stood outside of tags

  std::vector<DocNode> open_;
};

}  // namespace

DocNode parse_doctags(std::string_view text) {
  return DocParser().parse(text);
}

bool is_one_line(const DocNode& node) {
  return std::all_of(node.children.begin(), node.children.end(), [](const DocNode& part) {
    return part.children.empty() && part.table.is_empty();
  });
}

std::string find_title(const DocNode& root) {
  for (const char* tag : {"title", "section_header"}) {
    for (const DocNode& node : root.children) {
      if (node.tag == tag) return node.text;
    }
  }
  return "";
}

}  // namespace vlm::infer
