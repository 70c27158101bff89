// A JSON file that is one list of objects. Opening finds where the elements lie, without building
// them; an element is parsed, and checked, when it is asked for.
#include <algorithm>

#include "data/formats/mapped_file.h"
#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

struct Element {
  std::uint64_t begin;
  std::uint32_t size, line;
};

// Walks over the text of a list, counting lines. Inside of an element it only follows strings and
// brackets: what they hold is the parser's to judge.
class ListScanner {
 public:
  ListScanner(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  std::vector<Element> scan() {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
    skip_space();
    ++at_;  // the bracket that told the file for a list
    std::vector<Element> elements;
    skip_space();
    if (peek() == ']') {
      ++at_;
      return finish(elements);
    }
    for (;;) {
      skip_space();
      const std::size_t begin = at_;
      const std::uint32_t line = line_;
      skip_element();
      const std::size_t size = text_.find_last_not_of(" \t\r\n", at_ - 1) + 1 - begin;
      if (at_ <= begin || size > UINT32_MAX) {
        throw Error({.what = "not an element of a list", .where = concat(path_, ":", line)});
      }
      elements.push_back({begin, static_cast<std::uint32_t>(size), line});
      const char after = peek();
      ++at_;
      if (after == ']') return finish(elements);
    }
  }

 private:
  std::vector<Element> finish(std::vector<Element>& elements) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
        throw Error(
            {.what = "text behind the end of the list", .where = concat(path_, ":", line_)});
      }
      if (c == '\n') ++line_;
      ++at_;
    }
    return std::move(elements);
  }

  char peek() const {
    if (at_ < text_.size()) return text_[at_];
    throw Error({.what = "the list is not closed", .where = concat(path_, ":", line_)});
  }

  void skip_space() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') {
        ++line_;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        return;
      }
    }
  }

  // Up to the comma or bracket behind the element.
  void skip_element() {
    int depth = 0;
    for (;; ++at_) {
      switch (peek()) {
        case '"':
          skip_string();
          break;
        case '[':
        case '{':
          ++depth;
          break;
        case ']':
        case '}':
          if (depth == 0) return;
          --depth;
          break;
        case ',':
          if (depth == 0) return;
          break;
        case '\n':
          ++line_;
          break;
        default:
          break;
      }
    }
  }

  // From the opening quote to the closing one, which no backslash of its own stands before.
  void skip_string() {
    const std::size_t begin = at_;
    for (;;) {
      at_ = std::min(text_.find('"', at_ + 1), text_.size());
      peek();
      std::size_t backslashes = 0;
      while (text_[at_ - 1 - backslashes] == '\\' && at_ - 1 - backslashes > begin) ++backslashes;
      if (backslashes % 2 == 0) return;
    }
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
};

class JsonRows : public RowSource {
 public:
  explicit JsonRows(const std::filesystem::path& path)
      : path_(path.string()),
        folder_(path.parent_path()),
        file_(path_),
        elements_(ListScanner(file_.text(), path_).scan()) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(elements_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", elements_.at(static_cast<std::size_t>(index)).line);
  }

  Row at(std::int64_t index) const override {
    const Element& element = elements_.at(static_cast<std::size_t>(index));
    Row row{.columns = {}, .where = where(index), .folder = folder_};
    row.columns = parse_json(file_.text().substr(element.begin, element.size), row.where);
    return row;
  }

 private:
  std::string path_;
  std::filesystem::path folder_;
  MappedFile file_;
  std::vector<Element> elements_;
};

}  // namespace

std::unique_ptr<RowSource> open_json_rows(const std::filesystem::path& path) {
  return std::make_unique<JsonRows>(path);
}

}  // namespace vlm::data
