// A description → the words that caption metrics count.
//
//   text ─► tokenize_caption ─► lower-case tokens, contractions split, punctuation left out
//
// Reference: pycocoevalcap's PTBTokenizer (Stanford CoreNLP 3.4.1 with -lowerCase, then a list of
// punctuation removed). Covered is what descriptions and answers hold: words, contractions,
// numbers, amounts, abbreviations, quotes, brackets, dashes, addresses; tests/fixtures/metrics.json
// has the cases. The reference's rules for telephone numbers, smileys and markup are left out.
#pragma once

#include <string>
#include <vector>

namespace vlm::data {

std::vector<std::string> tokenize_caption(const std::string& text);

}  // namespace vlm::data
