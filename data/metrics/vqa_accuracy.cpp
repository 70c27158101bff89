#include "data/metrics/vqa_accuracy.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "data/metrics/answer_match.h"
#include "vlm/core/ascii.h"

namespace vlm::data {
namespace {

// Contractions that are mended when any one of their apostrophes is missing.
constexpr std::string_view kContractions[] = {
    "ain't",       "aren't",      "can't",          "could've",     "couldn't",
    "couldn't've", "didn't",      "doesn't",        "don't",        "hadn't",
    "hadn't've",   "hasn't",      "haven't",        "he'd",         "he'd've",
    "he's",        "how'd",       "how'll",         "how's",        "isn't",
    "it'd",        "it'd've",     "it'll",          "ma'am",        "might've",
    "mightn't",    "mightn't've", "must've",        "mustn't",      "needn't",
    "not've",      "o'clock",     "oughtn't",       "'ow's'at",     "shan't",
    "she'd've",    "should've",   "shouldn't",      "shouldn't've", "somebody'd've",
    "somebody'll", "somebody's",  "someone'd",      "someone'd've", "someone'll",
    "someone's",   "something'd", "something'd've", "something'll", "that's",
    "there'd",     "there'd've",  "there're",       "there's",      "they'd",
    "they'd've",   "they'll",     "they're",        "they've",      "'twas",
    "wasn't",      "we'd've",     "we've",          "weren't",      "what'll",
    "what're",     "what's",      "what've",        "when's",       "where'd",
    "where's",     "where've",    "who'd",          "who'd've",     "who'll",
    "who's",       "who've",      "why'll",         "why're",       "why's",
    "won't",       "would've",    "wouldn't",       "wouldn't've",  "y'all",
    "y'all'd've",  "y'all'll",    "you'd",          "you'd've",     "you'll",
    "you're",      "you've",
};

std::unordered_map<std::string, std::string> make_replacements() {
  std::unordered_map<std::string, std::string> words;
  for (const std::string_view right : kContractions) {
    for (std::size_t i = 0; i < right.size(); ++i) {
      if (right[i] != '\'') continue;
      std::string wrong(right);
      words[wrong.erase(i, 1)] = right;
    }
  }
  words["somebody'd"] = "somebodyd";  // the reference's table has it the wrong way round
  return words;
}

const std::unordered_map<std::string, std::string>& number_words() {
  static const std::unordered_map<std::string, std::string> words = {
      {"none", "0"}, {"zero", "0"}, {"one", "1"},   {"two", "2"},   {"three", "3"}, {"four", "4"},
      {"five", "5"}, {"six", "6"},  {"seven", "7"}, {"eight", "8"}, {"nine", "9"},  {"ten", "10"}};
  return words;
}

// "1,000" anywhere: then the reference drops all punctuation instead of putting spaces.
bool has_digit_comma(const std::string& text) {
  for (std::size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == ',' && is_digit(text[i - 1]) && is_digit(text[i + 1])) return true;
  }
  return false;
}

std::string replace_all(std::string text, char from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, 1, to);
  }
  return text;
}

// Periods that no digit follows, 32 of them at most: the reference hands a flag over as the count.
std::string strip_periods(const std::string& text) {
  constexpr int kMost = 32;
  std::string kept;
  int removed = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool before_digit = i + 1 < text.size() && is_digit(text[i + 1]);
    if (text[i] == '.' && !before_digit && removed < kMost) {
      ++removed;
    } else {
      kept += text[i];
    }
  }
  return kept;
}

std::string strip_punctuation(const std::string& text) {
  constexpr std::string_view kPunctuation = ";/[]\"{}()=+\\_-><@`,?!";
  const bool drops_all = has_digit_comma(text);
  std::string out = text;
  for (const char mark : kPunctuation) {
    const std::string before_space = {mark, ' '}, behind_space = {' ', mark};
    const bool at_space = text.find(before_space) != std::string::npos ||
                          text.find(behind_space) != std::string::npos;
    out = replace_all(std::move(out), mark, at_space || drops_all ? "" : " ");
  }
  return strip_periods(out);
}

std::vector<std::string> split_at_spaces(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    const bool is_space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!is_space) word += c;
    if (is_space && !word.empty()) words.push_back(std::exchange(word, ""));
  }
  return words;
}

}  // namespace

std::string normalize_vqa_answer(const std::string& text) {
  static const auto replacements = make_replacements();
  std::string line = text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::replace(line.begin(), line.end(), '\t', ' ');
  std::string normalized;
  for (std::string word : split_at_spaces(lower_text(strip_punctuation(strip_space(line))))) {
    if (const auto number = number_words().find(word); number != number_words().end()) {
      word = number->second;
    }
    if (word == "a" || word == "an" || word == "the") continue;
    const auto contraction = replacements.find(word);
    if (contraction != replacements.end()) word = contraction->second;
    normalized += normalized.empty() ? word : " " + word;
  }
  return normalized;
}

double vqa_accuracy(const std::string& answer, const std::vector<std::string>& references) {
  const std::string given = normalize_vqa_answer(answer);
  std::int64_t equal = 0;
  const auto people = static_cast<std::int64_t>(references.size());
  for (const std::string& reference : references) {
    equal += normalize_vqa_answer(reference) == given ? 1 : 0;
  }
  if (people == 1) return static_cast<double>(equal);
  double sum = 0;
  for (std::int64_t left_out = 0; left_out < people; ++left_out) {
    // The first `equal` of them stand for the ones that agree.
    const std::int64_t others = equal - (left_out < equal ? 1 : 0);
    sum += std::min(1.0, static_cast<double>(others) / 3);
  }
  return people > 0 ? sum / static_cast<double>(people) : 0;
}

}  // namespace vlm::data
