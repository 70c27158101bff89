// A program around the library whose numbers look otherwise: "1.234.567,5". No locale of the system
// is needed.
#pragma once

#include <locale>
#include <string>

class GroupingLocale {
 public:
  GroupingLocale() : before_(std::locale::global(std::locale(std::locale(), new Punctuation))) {}
  ~GroupingLocale() { std::locale::global(before_); }
  GroupingLocale(const GroupingLocale&) = delete;
  GroupingLocale& operator=(const GroupingLocale&) = delete;

 private:
  struct Punctuation : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
    std::string do_truename() const override { return "wahr"; }
  };

  std::locale before_;
};
