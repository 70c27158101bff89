// One answer against one reference: equality, edit distance, numbers with a tolerance.
#pragma once

#include <cstddef>
#include <string>

namespace vlm::data {

// Equal but for ASCII case and surrounding white space.
bool is_same_answer(const std::string& answer, const std::string& reference);

// ANLS of one pair: 1 − edit distance / length of the longer text, 0 when that is below 0.5. Case
// and runs of white space make no difference to the distance; the lengths are those of the texts as
// they are, as in DocVQA's evaluation.
double normalized_levenshtein_similarity(const std::string& answer, const std::string& reference);

// Edits (a character added, left out or replaced) that make the reference of the answer, over the
// reference's length; surrounding white space doesn't count, case does. More than 1 where the
// answer is much longer. An empty reference counts as of length 1.
double character_error_rate(const std::string& answer, const std::string& reference);

// The reference's length in that rate.
std::size_t reference_length(const std::string& reference);

// Numbers ("3.5", "12%") within 5 % of the reference; other texts, and a reference of 0, equal but
// for case and surrounding white space.
bool is_relaxed_match(const std::string& answer, const std::string& reference);

// Text without surrounding white space (Unicode's), for valid or repaired UTF-8.
std::string strip_space(const std::string& text);

// Lower case, one code point to one.
std::string lower_text(const std::string& text);

}  // namespace vlm::data
