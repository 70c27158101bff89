// A JSON file that is one list of objects. Opening finds where the elements lie, without building
// them; an element is parsed, and checked, when it is asked for.
#include <algorithm>

#include "data/formats/json_text_rows.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

struct Element {
  std::uint64_t begin;
  std::uint32_t size, line;
};

// Walks over a list, counting lines. Inside of an element it only follows strings and brackets:
// what they hold is the parser's to judge.
class ListScanner {
 public:
  explicit ListScanner(const FileBytes& file) : stream_(file), path_(file.path()) {}

  std::vector<Element> scan() {
    skip_mark(stream_, path_);
    skip_space();
    peek();
    next_char();  // the bracket that told the file for a list
    skip_space();
    if (peek() == ']') return finish();
    for (;;) {
      skip_space();
      const std::uint64_t begin = stream_.at();
      const std::uint32_t line = line_;
      end_ = begin;
      skip_element();
      const std::uint64_t size = end_ - begin;
      if (size == 0 || size > UINT32_MAX || peek() == '}') {
        throw Error({.what = "not an element of a list", .where = concat(path_, ":", line)});
      }
      elements_.push_back({begin, static_cast<std::uint32_t>(size), line});
      if (peek() == ']') return finish();
      next_char();
    }
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

  std::vector<Element> finish() {
    next_char();
    skip_space();
    if (!stream_.at_end()) {
      throw Error({.what = "text behind the end of the list", .where = concat(path_, ":", line_)});
    }
    elements_.shrink_to_fit();
    return std::move(elements_);
  }

  char peek() {
    if (!stream_.at_end()) return stream_.peek();
    throw Error({.what = "the list is not closed", .where = concat(path_, ":", line_)});
  }

  char next_char() {
    const char c = stream_.peek();
    stream_.skip(1);
    // A line ends with LF, CRLF or a lone CR.
    if (c == '\r' || (c == '\n' && !is_behind_return_)) ++line_;
    is_behind_return_ = c == '\r';
    return c;
  }

  void skip_space() {
    while (!stream_.at_end() && is_space(stream_.peek())) next_char();
  }

  // Up to the comma or bracket behind the element; `end_` is then where it ends.
  void skip_element() {
    for (int depth = 0;;) {
      const char c = peek();
      if (depth == 0 && (c == ',' || c == ']' || c == '}')) return;
      next_char();
      if (c == '"') skip_string();
      if (c == '[' || c == '{') ++depth;
      if (c == ']' || c == '}') --depth;
      if (!is_space(c)) end_ = stream_.at();
    }
  }

  // Behind the opening quote: to behind the closing one. Most of a file is inside of strings.
  void skip_string() {
    for (;;) {
      peek();
      const std::string_view bytes = stream_.next_bytes();
      std::size_t end = 0;
      while (end < bytes.size() && bytes[end] != '"' && bytes[end] != '\\') ++end;
      line_ += static_cast<std::uint32_t>(std::count(bytes.begin(), bytes.begin() + end, '\n'));
      stream_.skip(end);
      if (end == bytes.size()) continue;  // of the block
      if (next_char() == '"') return;
      peek();
      next_char();
    }
  }

  ByteStream stream_;
  const std::string& path_;
  std::vector<Element> elements_;
  std::uint64_t end_ = 0;
  std::uint32_t line_ = 1;
  bool is_behind_return_ = false;
};

class JsonRows : public JsonTextRows {
 public:
  explicit JsonRows(const std::filesystem::path& path)
      : JsonTextRows(path), elements_(ListScanner(file_).scan()) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(elements_.size()); }

  std::string where(std::int64_t index) const override {
    return concat(path_, ":", elements_.at(static_cast<std::size_t>(index)).line);
  }

  void add_to(ListDigest& digest) const override { add_bytes(file_, digest); }

 private:
  std::string text(std::int64_t index) const override {
    const Element& element = elements_.at(static_cast<std::size_t>(index));
    return file_.read(element.begin, element.size);
  }

  std::vector<Element> elements_;
};

}  // namespace

std::unique_ptr<RowSource> open_json_rows(const std::filesystem::path& path) {
  return std::make_unique<JsonRows>(path);
}

}  // namespace vlm::data
