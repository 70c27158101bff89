#include "data/metrics/rouge.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "data/metrics/answer_match.h"

namespace vlm::data {
namespace {

std::vector<std::string> split_into_terms(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : lower_text(text) + " ") {
    const bool is_part = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (is_part) word += c;
    if (!is_part && !word.empty()) words.push_back(std::exchange(word, ""));
  }
  return words;
}

std::size_t common_subsequence(const std::vector<std::string>& a,
                               const std::vector<std::string>& b) {
  std::vector<std::size_t> row(b.size() + 1, 0);
  for (const std::string& word : a) {
    std::size_t diagonal = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

double rouge_l(const std::string& answer, const std::string& reference) {
  const auto given = split_into_terms(answer), wanted = split_into_terms(reference);
  const auto common = static_cast<double>(common_subsequence(given, wanted));
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(given.size());
  const double recall = common / static_cast<double>(wanted.size());
  return 2 * precision * recall / (precision + recall);
}

}  // namespace vlm::data
