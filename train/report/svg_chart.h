// Curves as an inline SVG picture, for a page that needs nothing else.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace vlm::train {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x rising; not finite: a gap
};

// Of the vertical axis. kLogWhereWide: logarithmic when every value is above 0 and the largest is
// at least 10 times the smallest, else linear.
enum class Scale { kLinear, kLogWhereWide };

struct Chart {
  std::string title;
  std::vector<Series> series;
  Scale scale = Scale::kLinear;
};

// An <svg> element: axes with round numbers, a line a series, a dot a point where there are few,
// and a legend for several series. The title says when the axis is logarithmic. Empty text when
// there is no finite point.
std::string draw_chart(const Chart& chart);

// Round numbers that span [low, high], about `count` of them.
std::vector<double> choose_ticks(double low, double high, int count);

// Numbers for a logarithmic axis within [low, high], 0 < low < high: 1, 2 and 5 times powers of ten
// over up to three decades, else powers of ten, at most 6 of them.
std::vector<double> choose_log_ticks(double low, double high);

// Text with <, >, & and quotes as entities.
std::string escape_html(const std::string& text);

}  // namespace vlm::train
