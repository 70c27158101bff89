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

struct Chart {
  std::string title;
  std::vector<Series> series;
};

// Axes with round numbers, a line and dots a series, a legend when there are several. Empty text
// when there is no finite point.
std::string draw_chart(const Chart& chart);

// Round numbers that span [low, high], about `count` of them.
std::vector<double> choose_ticks(double low, double high, int count);

// Text with <, >, & and quotes as entities.
std::string escape_html(const std::string& text);

}  // namespace vlm::train
