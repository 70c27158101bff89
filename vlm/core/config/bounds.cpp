#include "vlm/core/config/bounds.h"

#include <charconv>
#include <cmath>

namespace vlm {
namespace {

std::string shortest(double number) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, number).ptr;
  return {text, end};
}

ValueCheck make_check(const std::function<bool(double)>& is_right, const std::string& wanted) {
  return [=](const std::string& text) -> std::string {
    double number = 0;
    const char* last = text.data() + text.size();
    const auto [end, code] = std::from_chars(text.data(), last, number);
    const bool is_number = code == std::errc() && end == last && std::isfinite(number);
    if (is_number && is_right(number)) return "";
    return "got " + (text.empty() ? "nothing" : text) + ", wanted " + wanted;
  };
}

}  // namespace

ValueCheck at_least(double least) {
  return make_check([=](double number) { return number >= least; }, shortest(least) + " or more");
}

ValueCheck above(double bound) {
  return make_check([=](double number) { return number > bound; },
                    "a number above " + shortest(bound));
}

ValueCheck between(double least, double most) {
  return make_check([=](double number) { return number >= least && number <= most; },
                    shortest(least) + " to " + shortest(most));
}

ValueCheck not_empty() {
  return [](const std::string& text) -> std::string {
    return text.empty() ? "the value is empty" : "";
  };
}

}  // namespace vlm
