#include "data/metrics/caption_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "data/metrics/answer_match.h"
#include "vlm/core/ascii.h"

namespace vlm::data {
namespace {

using Words = std::vector<std::string>;

// Words that keep their period.
const std::unordered_set<std::string_view> kAbbreviations = {
    "mr",   "mrs",  "ms",  "dr",  "st",  "jr",   "sr",  "prof", "rev", "gen", "col",  "lt",
    "sgt",  "capt", "gov", "sen", "rep", "vs",   "etc", "inc",  "ltd", "co",  "corp", "ave",
    "blvd", "rd",   "jan", "feb", "aug", "sept", "oct", "nov",  "dec", "ft",  "mt",   "al"};

// Words that are two.
const std::unordered_map<std::string_view, std::pair<const char*, const char*>> kTwoWords = {
    {"cannot", {"can", "not"}}, {"gonna", {"gon", "na"}}, {"gotta", {"got", "ta"}},
    {"wanna", {"wan", "na"}},   {"gimme", {"gim", "me"}}, {"lemme", {"lem", "me"}},
    {"y'all", {"y'", "all"}}};

constexpr std::array<std::string_view, 6> kSuffixes = {"s", "m", "d", "re", "ve", "ll"};

// Characters as the reference writes them in ASCII, before anything else is looked at.
constexpr std::pair<std::string_view, std::string_view> kSpellings[] = {
    {"\u2018", "'"},    {"\u2019", "'"},       {"\u201c", "\""},       {"\u201d", "\""},
    {"\u2013", " -- "}, {"\u2014", " -- "},    {"\u2026", " ... "},    {"\u00a3", " # "},
    {"\u20ac", " $ "},  {"\u00a2", " cents "}, {"\u00a5", " \u00a5 "}, {"\u00a0", " "}};

// Letters and digits; bytes beyond ASCII count as letters.
bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || is_digit(c) || static_cast<unsigned char>(c) >= 0x80;
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string spell_in_ascii(std::string text) {
  for (const auto& [from, to] : kSpellings) {
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

class Scanner {
 public:
  explicit Scanner(std::string text) : text_(std::move(text)) {}

  Words run() {
    while (at_ < text_.size()) {
      if (is_space(text_[at_])) {
        ++at_;
      } else if (!take_address() && !take_number() && !take_word() && !take_quoted()) {
        take_mark();
      }
    }
    return std::move(words_);
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  bool starts_word() const { return at_ == 0 || !is_letter_or_digit(text_[at_ - 1]); }

  void add_word(std::size_t length) {
    words_.push_back(text_.substr(at_, length));
    at_ += length;
  }

  // Mail and web addresses, #tags, @names and <tags>.
  bool take_address() {
    if (!starts_word()) return false;
    const std::size_t end = std::min(text_.find_first_of(" \t\n\r\v\f", at_), text_.size());
    std::string_view chunk(text_.data() + at_, end - at_);
    if (chunk[0] == '<') {
      const auto close = chunk.find('>');
      if (close == std::string_view::npos || close < 2 || chunk[1] == '>') return false;
      add_word(close + 1);
      return true;
    }
    if ((chunk[0] == '#' || chunk[0] == '@') && chunk.size() > 1 && is_letter_or_digit(chunk[1]) &&
        !is_digit(chunk[1])) {
      std::size_t length = 1;
      while (is_letter_or_digit(peek(length)) || peek(length) == '_') ++length;
      add_word(length);
      return true;
    }
    const auto mail = chunk.find('@');
    const bool is_mail = mail != std::string_view::npos && mail > 0 &&
                         chunk.find('.', mail) != std::string_view::npos;
    const bool is_web =
        chunk.starts_with("http://") || chunk.starts_with("https://") || chunk.starts_with("www.");
    if (!is_mail && !is_web) return false;
    add_word(chunk.find_last_not_of(".,;:!?)\"'") + 1);
    return true;
  }

  // 5,000  3.50  10:30  3/4/2020  -5  4k  3-d  5'10
  bool take_number() {
    const bool has_sign =
        (peek() == '-' || peek() == '+') && starts_word() && (at_ == 0 || is_space(text_[at_ - 1]));
    std::size_t length = has_sign ? 1 : 0;
    if (peek(length) == '.' && is_digit(peek(length + 1)) && starts_word()) ++length;
    if (!is_digit(peek(length))) return false;
    const auto joins = [](char c) { return c == ',' || c == '.' || c == ':' || c == '/'; };
    while (is_digit(peek(length)) || (joins(peek(length)) && is_digit(peek(length + 1)))) ++length;
    if (is_letter_or_digit(peek(length)) || peek(length) == '-' || peek(length) == '\'') {
      if (!has_sign) return take_word(length);
    }
    add_word(length);
    return true;
  }

  // A word with its inner hyphens and slashes; `length` of it are known already.
  bool take_word(std::size_t length = 0) {
    if (length == 0 && take_acronym()) return true;
    const auto joins = [](char c) {
      return std::string_view("-/&'.").find(c) != std::string::npos;
    };
    while (is_letter_or_digit(peek(length)) ||
           (length > 0 && joins(peek(length)) && is_letter_or_digit(peek(length + 1)))) {
      ++length;
    }
    if (length == 0) return false;
    const std::string word = text_.substr(at_, length);
    at_ += length;
    const bool is_number_sign = word == "no" && peek(1) == ' ' && is_digit(peek(2));
    if (peek() == '.' && (kAbbreviations.count(word) || is_number_sign)) {
      words_.push_back(word + ".");
      ++at_;
    } else {
      add_split(word);
    }
    return true;
  }

  // u.s.  a.m.  e.g.
  bool take_acronym() {
    std::size_t length = 0;
    while (peek(length) >= 'a' && peek(length) <= 'z' && peek(length + 1) == '.') length += 2;
    if (length < 4 || is_letter_or_digit(peek(length))) return false;
    add_word(length);
    return true;
  }

  // A word at its apostrophes: do n't, dog 's, 60 's.
  void add_split(const std::string& word) {
    const auto two = kTwoWords.find(word);
    if (two != kTwoWords.end()) {
      words_.insert(words_.end(), {two->second.first, two->second.second});
      return;
    }
    const auto mark = word.rfind('\'');
    if (mark == std::string::npos) {
      words_.push_back(word);
      return;
    }
    const std::string left = word.substr(0, mark), right = word.substr(mark + 1);
    if (right == "t" && left.size() > 1 && left.ends_with('n')) {
      add_split(left.substr(0, left.size() - 1));
      words_.push_back("n't");
    } else if (std::find(kSuffixes.begin(), kSuffixes.end(), right) != kSuffixes.end()) {
      add_split(left);
      words_.push_back("'" + right);
    } else if (is_digit(left.back()) || is_digit(right[0])) {
      add_split(left);
      words_.push_back(right);
    } else {
      words_.push_back(word);  // o'clock
    }
  }

  // What an apostrophe starts: 'tis, '90s, 'n'; else it is a quotation mark and is left out.
  bool take_quoted() {
    if (peek() != '\'') return false;
    for (const std::string_view verb : {"is", "was"}) {
      if (text_.compare(at_ + 1, 1, "t") == 0 && text_.compare(at_ + 2, verb.size(), verb) == 0 &&
          !is_letter_or_digit(peek(2 + verb.size()))) {
        words_.insert(words_.end(), {"'t", std::string(verb)});
        at_ += 2 + verb.size();
        return true;
      }
    }
    if (is_digit(peek(1)) && is_digit(peek(2)) && peek(3) == 's') {
      add_word(4);
    } else if (text_.compare(at_, 3, "'n'") == 0) {
      add_word(3);
    } else {
      ++at_;
    }
    return true;
  }

  void take_mark() {
    static const std::unordered_map<char, std::string> brackets = {{'(', "-lrb-"}, {')', "-rrb-"},
                                                                   {'[', "-lsb-"}, {']', "-rsb-"},
                                                                   {'{', "-lcb-"}, {'}', "-rcb-"}};
    const char mark = peek();
    const auto bracket = brackets.find(mark);
    if (bracket != brackets.end()) words_.push_back(bracket->second);
    std::size_t length = 1;
    if (mark == '?' || mark == '!') {
      while (peek(length) == '?' || peek(length) == '!') ++length;
      if (length > 1) words_.push_back(text_.substr(at_, length));
    } else if (bracket == brackets.end() &&
               std::string_view(".,:;-`\"").find(mark) == std::string_view::npos) {
      words_.emplace_back(1, mark);
    }
    at_ += length;
  }

  std::string text_;
  std::size_t at_ = 0;
  Words words_;
};

}  // namespace

std::vector<std::string> tokenize_caption(const std::string& text) {
  return Scanner(spell_in_ascii(lower_text(text))).run();
}

}  // namespace vlm::data
