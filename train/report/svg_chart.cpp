#include "train/report/svg_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "train/report/run_record.h"
#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

constexpr double kWidth = 460, kHeight = 240;
constexpr double kLeft = 58, kRight = 12, kTop = 30, kBottom = 30;
constexpr std::array<const char*, 6> kColors = {"#2563eb", "#dc2626", "#16a34a",
                                                "#9333ea", "#d97706", "#0891b2"};

constexpr double kWide = 10;  // largest to smallest value: from here an axis may be logarithmic

struct Range {
  bool is_log = false;
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // A single value gets some room around it.
  void widen() {
    if (low < high) return;
    const double room = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= room;
    high += room;
  }
  // 0 at `low`, 1 at `high`.
  double place(double value) const {
    if (is_log) return std::log(value / low) / std::log(high / low);
    return (value - low) / (high - low);
  }
};

bool is_drawn(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

// Coordinates with one digit behind the point.
std::string coordinate(double value) {
  return concat(std::round(value * 10) / 10);
}

class Drawing {
 public:
  Drawing(const Chart& chart, Range x, Range y) : chart_(chart), x_(x), y_(y) {}

  std::string draw() {
    out_ = concat("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\"><title>",
                  escape_html(chart_.title), "</title>");
    add_text({kLeft, 16}, "start", "title", chart_.title + (y_.is_log ? " (logarithmic)" : ""));
    add_axes();
    for (std::size_t i = 0; i < chart_.series.size(); ++i) {
      add_curve(chart_.series[i], kColors[i % kColors.size()]);
    }
    if (chart_.series.size() > 1) add_legend();
    return out_ + "</svg>";
  }

 private:
  using Point = std::pair<double, double>;

  Point to_page(const Point& point) const {
    return {kLeft + x_.place(point.first) * (kWidth - kLeft - kRight),
            kHeight - kBottom - y_.place(point.second) * (kHeight - kTop - kBottom)};
  }

  void add_text(const Point& at, const char* anchor, const char* kind, const std::string& text) {
    out_ += concat("<text x=\"", coordinate(at.first), "\" y=\"", coordinate(at.second),
                   "\" text-anchor=\"", anchor, "\" class=\"", kind, "\">", escape_html(text),
                   "</text>");
  }

  void add_line(const Point& from, const Point& to) {
    out_ += concat("<line x1=\"", coordinate(from.first), "\" y1=\"", coordinate(from.second),
                   "\" x2=\"", coordinate(to.first), "\" y2=\"", coordinate(to.second),
                   "\" class=\"grid\"/>");
  }

  void add_axes() {
    for (const double tick :
         y_.is_log ? choose_log_ticks(y_.low, y_.high) : choose_ticks(y_.low, y_.high, 5)) {
      const Point at = to_page({x_.low, tick});
      add_line(at, {kWidth - kRight, at.second});
      add_text({kLeft - 6, at.second + 4}, "end", "tick", format_number(tick));
    }
    for (const double tick : choose_ticks(x_.low, x_.high, 6)) {
      const Point at = to_page({tick, y_.low});
      add_text({at.first, kHeight - 12}, "middle", "tick", format_number(tick));
    }
  }

  void add_curve(const Series& series, const char* color) {
    std::string line, dots;
    bool is_down = false;  // the pen
    for (const Point& point : series.points) {
      if (!is_drawn(point)) {
        is_down = false;
        continue;
      }
      const auto [x, y] = to_page(point);
      line += concat(is_down ? "L" : "M", coordinate(x), " ", coordinate(y));
      is_down = true;
      if (series.points.size() <= 60) {
        dots += concat("<circle cx=\"", coordinate(x), "\" cy=\"", coordinate(y),
                       "\" r=\"2.5\" fill=\"", color, "\"><title>", format_number(point.first),
                       ": ", format_number(point.second), "</title></circle>");
      }
    }
    out_ += concat("<path d=\"", line, "\" fill=\"none\" stroke=\"", color,
                   "\" stroke-width=\"1.6\"/>", dots);
  }

  void add_legend() {
    double x = kWidth - kRight;
    for (std::size_t i = chart_.series.size(); i-- > 0;) {
      const std::string& name = chart_.series[i].name;
      add_text({x, 16}, "end", "tick", name);
      x -= 7.0 * static_cast<double>(name.size()) + 8;
      out_ += concat("<circle cx=\"", coordinate(x), "\" cy=\"12\" r=\"4\" fill=\"",
                     kColors[i % kColors.size()], "\"/>");
      x -= 12;
    }
  }

  const Chart& chart_;
  Range x_, y_;
  std::string out_;
};

}  // namespace

std::string draw_chart(const Chart& chart) {
  Range x, y;
  for (const Series& series : chart.series) {
    for (const auto& point : series.points) {
      if (!is_drawn(point)) continue;
      x.add(point.first);
      y.add(point.second);
    }
  }
  if (x.low > x.high) return "";
  x.widen();
  y.is_log = chart.scale == Scale::kLogWhereWide && y.low > 0 && y.high / y.low >= kWide;
  y.widen();
  return Drawing(chart, x, y).draw();
}

std::vector<double> choose_ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = power * 10;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= power * factor) {
      step = power * factor;
      break;
    }
  }
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (double i = first; i * step <= high + step * 1e-9; ++i) ticks.push_back(i * step);
  return ticks;
}

std::vector<double> choose_log_ticks(double low, double high) {
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  const bool is_narrow = high / low <= 1000;
  const int stride = is_narrow ? 1 : (last - first) / 6 + 1;  // decades from tick to tick
  std::vector<double> ticks;
  for (int power = first; power <= last; power += stride) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, power);
      const bool is_within = tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9);
      if (is_within && (is_narrow || factor == 1.0)) ticks.push_back(tick);
    }
  }
  return ticks;
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace vlm::train
