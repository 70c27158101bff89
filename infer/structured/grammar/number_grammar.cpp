#include "infer/structured/grammar/number_grammar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "infer/structured/grammar/code_points.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostInteger = 999'999'999'999'999'999;  // 18 digits
constexpr std::int64_t kMostMultiples = 1000;
constexpr std::size_t kExactDigits = 15;  // of a double

[[noreturn]] void refuse_number(const std::string& what, const std::string& where,
                                const std::string& got = "", const std::string& hint = "") {
  throw Error({.what = what, .where = where, .got = got, .hint = hint});
}

// Alternatives in brackets; "" for none.
std::string join_choices(const std::vector<std::string>& choices) {
  if (choices.size() < 2) return choices.empty() ? "" : choices[0];
  std::string text = "(" + choices[0];
  for (std::size_t i = 1; i < choices.size(); ++i) text += " | " + choices[i];
  return text + ")";
}

std::string digit_class(char first, char last) {
  return first == last ? concat("\"", first, "\"") : concat("[", first, "-", last, "]");
}

std::string any_digits(std::size_t least, std::size_t most) {
  return most == 0 ? "" : concat("[0-9]{", least, ",", most, "}");
}

// Digits as long as both bounds, between them.
std::string same_length(const std::string& least, const std::string& most) {
  const std::size_t rest = least.size() - 1;
  if (least.empty()) return "";
  const auto follow = [&](const std::string& first, const std::string& from,
                          const std::string& to) {
    const std::string tail = same_length(from, to);
    return tail.empty() ? first : first + " " + tail;
  };
  if (least == std::string(least.size(), '0') && most == std::string(most.size(), '9')) {
    return any_digits(least.size(), least.size());
  }
  const std::string zeros(rest, '0'), nines(rest, '9');
  if (least[0] == most[0]) {
    return follow(digit_class(least[0], least[0]), least.substr(1), most.substr(1));
  }
  std::vector<std::string> choices;
  char first = least[0], last = most[0];
  if (least.substr(1) != zeros) {
    choices.push_back(follow(digit_class(first, first), least.substr(1), nines));
    ++first;
  }
  const bool is_cut = most.substr(1) != nines;
  if (is_cut) --last;
  if (first <= last) choices.push_back(follow(digit_class(first, last), zeros, nines));
  if (is_cut) choices.push_back(follow(digit_class(most[0], most[0]), zeros, most.substr(1)));
  return join_choices(choices);
}

// Numbers that aren't negative, without leading zeros. "" when there are none.
std::string whole_between(std::int64_t least, std::int64_t most) {
  std::vector<std::string> choices;
  for (std::int64_t begin = 0, end = 9; begin <= most; begin = end + 1, end = end * 10 + 9) {
    const std::int64_t from = std::max(least, begin), to = std::min(most, end);
    if (from <= to) choices.push_back(same_length(concat(from), concat(to)));
    if (end >= kMostInteger) break;
  }
  return join_choices(choices);
}

// What stands behind the point: whether nothing may, and an expression of one digit or more.
struct Fraction {
  bool may_be_empty = false;
  std::string digits = {};  // "": none

  bool is_possible() const { return may_be_empty || !digits.empty(); }
};

Fraction any_fraction(std::size_t room) {
  return {.may_be_empty = true, .digits = any_digits(1, room)};
}

void add_digit(Fraction& all, const std::string& digit, const Fraction& rest) {
  if (!rest.is_possible()) return;
  std::string text = digit;
  if (!rest.digits.empty())
    text += rest.may_be_empty ? " (" + rest.digits + ")?" : " " + rest.digits;
  all.digits += (all.digits.empty() ? "" : " | ") + text;
}

Fraction in_brackets(Fraction fraction) {
  if (fraction.digits.find('|') != std::string::npos) fraction.digits = "(" + fraction.digits + ")";
  return fraction;
}

// Fractions above `bound`, or from it on; `bound` has no zeros at its end.
Fraction fraction_above(const std::string& bound, bool excludes, std::size_t room) {
  if (bound.empty() && !excludes) return any_fraction(room);
  Fraction all;
  if (room == 0) return all;
  const char digit = bound.empty() ? '0' : bound[0];
  if (digit < '9') add_digit(all, digit_class(digit + 1, '9'), any_fraction(room - 1));
  add_digit(all, digit_class(digit, digit),
            fraction_above(bound.empty() ? "" : bound.substr(1), excludes, room - 1));
  return in_brackets(all);
}

Fraction fraction_below(const std::string& bound, bool excludes, std::size_t room) {
  if (bound.empty()) {
    if (excludes) return {};
    return {.may_be_empty = true, .digits = room > 0 ? concat("\"0\"{1,", room, "}") : ""};
  }
  Fraction all{.may_be_empty = true};
  if (room == 0) return all;
  const char digit = bound[0];
  if (digit > '0') add_digit(all, digit_class('0', digit - 1), any_fraction(room - 1));
  add_digit(all, digit_class(digit, digit), fraction_below(bound.substr(1), excludes, room - 1));
  return in_brackets(all);
}

// A bound that isn't negative, as digits.
struct NumberBound {
  std::int64_t whole = 0;
  std::string fraction = {};  // without zeros at the end
  bool excludes = false;
};

Fraction fraction_inside(const NumberBound& least, const NumberBound& most, std::size_t room) {
  if (least.fraction.empty() && !least.excludes)
    return fraction_below(most.fraction, most.excludes, room);
  if (most.fraction.empty()) return {};  // above something, and at most nothing
  Fraction all;
  if (room == 0) return all;
  const char first = least.fraction.empty() ? '0' : least.fraction[0];
  const char last = most.fraction[0];
  const NumberBound least_rest{.fraction = least.fraction.empty() ? "" : least.fraction.substr(1),
                               .excludes = least.excludes};
  const NumberBound most_rest{.fraction = most.fraction.substr(1), .excludes = most.excludes};
  if (first > last) return all;
  if (first == last) {
    add_digit(all, digit_class(first, first), fraction_inside(least_rest, most_rest, room - 1));
    return in_brackets(all);
  }
  add_digit(all, digit_class(first, first),
            fraction_above(least_rest.fraction, least.excludes, room - 1));
  if (first + 1 < last) {
    add_digit(all, digit_class(first + 1, last - 1), any_fraction(room - 1));
  }
  add_digit(all, digit_class(last, last),
            fraction_below(most_rest.fraction, most.excludes, room - 1));
  return in_brackets(all);
}

void add_number(std::vector<std::string>& choices, const std::string& whole,
                const Fraction& fraction) {
  if (whole.empty() || !fraction.is_possible()) return;
  if (fraction.digits.empty()) return choices.push_back(whole);
  const std::string tail = "(\".\" " + fraction.digits + ")";
  choices.push_back(whole + " " + tail + (fraction.may_be_empty ? "?" : ""));
}

// Numbers from `least` to `most`, neither of them negative.
std::string decimals(const NumberBound& least, const NumberBound& most) {
  const std::size_t used = concat(most.whole).size();
  const std::size_t room = std::max({kExactDigits - std::min(used, kExactDigits - 1),
                                     least.fraction.size(), most.fraction.size()});
  std::vector<std::string> choices;
  if (least.whole > most.whole) return "";
  if (least.whole == most.whole) {
    add_number(choices, whole_between(least.whole, least.whole),
               fraction_inside(least, most, room));
    return join_choices(choices);
  }
  add_number(choices, whole_between(least.whole, least.whole),
             fraction_above(least.fraction, least.excludes, room));
  add_number(choices, whole_between(least.whole + 1, most.whole - 1), any_fraction(room));
  add_number(choices, whole_between(most.whole, most.whole),
             fraction_below(most.fraction, most.excludes, room));
  return join_choices(choices);
}

NumberBound to_bound(double value, bool excludes, const std::string& where) {
  char text[400];
  const auto [end, code] =
      std::to_chars(text, text + sizeof text, std::abs(value), std::chars_format::fixed);
  const std::string digits(text, end);
  const auto point = std::min(digits.find('.'), digits.size());
  NumberBound bound{.excludes = excludes};
  if (point < digits.size()) bound.fraction = digits.substr(point + 1);
  while (bound.fraction.ends_with('0')) bound.fraction.pop_back();
  const std::size_t most = excludes ? kExactDigits : kExactDigits + 3;
  if (point + bound.fraction.size() > most) {
    refuse_number("a bound has too many digits", where, digits, concat("at most ", most));
  }
  std::from_chars(digits.data(), digits.data() + point, bound.whole);
  return bound;
}

}  // namespace

std::string number_to_grammar(const NumberBounds& bounds, const std::string& where) {
  if (!bounds.least && !bounds.most) {
    return "\"-\"? (\"0\" | [1-9] [0-9]{0,17}) (\".\" [0-9]{1,20})? ([eE] [+-]? [0-9]{1,2})?";
  }
  const NumberBound furthest{.whole = kMostInteger};
  std::vector<std::string> choices;
  if (!bounds.most || *bounds.most >= 0) {
    const bool is_positive = bounds.least && *bounds.least >= 0;
    const std::string text = decimals(
        is_positive ? to_bound(*bounds.least, bounds.excludes_least, where) : NumberBound(),
        bounds.most ? to_bound(*bounds.most, bounds.excludes_most, where) : furthest);
    if (!text.empty()) choices.push_back(text);
  }
  if (!bounds.least || *bounds.least < 0) {
    const bool is_negative = bounds.most && *bounds.most < 0;
    const std::string text =
        decimals(is_negative ? to_bound(*bounds.most, bounds.excludes_most, where)
                             : NumberBound{.excludes = true},
                 bounds.least ? to_bound(*bounds.least, bounds.excludes_least, where) : furthest);
    if (!text.empty()) choices.push_back("\"-\" " + text);
  }
  if (choices.empty()) refuse_number("no number meets the bounds", where);
  return join_choices(choices);
}

std::string integer_to_grammar(const NumberBounds& bounds, std::optional<double> multiple_of,
                               const std::string& where) {
  const auto to_whole = [&](double value) {
    if (std::abs(value) > static_cast<double>(kMostInteger)) {
      refuse_number("a bound has too many digits", where, concat(value), "at most 18");
    }
    return static_cast<std::int64_t>(value);
  };
  std::int64_t least = -kMostInteger, most = kMostInteger;
  if (bounds.least) {
    least = to_whole(std::ceil(*bounds.least));
    if (bounds.excludes_least && static_cast<double>(least) == *bounds.least) ++least;
  }
  if (bounds.most) {
    most = to_whole(std::floor(*bounds.most));
    if (bounds.excludes_most && static_cast<double>(most) == *bounds.most) --most;
  }
  if (multiple_of) {
    const auto step = static_cast<std::int64_t>(*multiple_of);
    const bool is_listed = static_cast<double>(step) == *multiple_of && step > 0 && bounds.least &&
                           bounds.most && (most - least) / step < kMostMultiples;
    if (!is_listed) {
      refuse_number("multipleOf can't be kept", where, concat(*multiple_of),
                    concat("a whole number beside minimum and maximum, with up to ", kMostMultiples,
                           " multiples between them"));
    }
    std::vector<std::string> values;
    const std::int64_t first = least / step * step;  // rounded towards 0
    for (std::int64_t value = first; value <= most; value += step) {
      if (value >= least) values.push_back(to_literal(concat(value)));
    }
    if (values.empty()) refuse_number("no number meets the bounds", where);
    return join_choices(values);
  }
  std::vector<std::string> choices;
  if (most >= 0) choices.push_back(whole_between(std::max<std::int64_t>(least, 0), most));
  const std::string negative =
      least < 0 ? whole_between(std::max<std::int64_t>(-most, 1), -least) : "";
  if (!negative.empty()) choices.push_back("\"-\" " + negative);
  std::erase(choices, "");
  if (choices.empty()) refuse_number("no number meets the bounds", where);
  return join_choices(choices);
}

}  // namespace vlm::infer
