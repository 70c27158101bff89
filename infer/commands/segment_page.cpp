#include "infer/commands/segment_page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "infer/doctags/text.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr const char* kSegmentStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
section { border-top: 1px solid #ddd; padding: .5rem 0 1rem; }
svg { display: block; width: 100%; height: 4rem; background: #f3f3f3; }
rect { fill: #9bc1ee; } rect.best { fill: #1f5fa8; }
.ends { display: flex; justify-content: space-between; color: #666; font-size: 12px; }
.error { color: #a40000; }
)";

std::string text_of(const OrderedJson& row, const char* name) {
  const auto found = row.find(name);
  return found != row.end() && found->is_string() ? html_escaped(found->get<std::string>()) : "";
}

// 0 for null, which stands for what is no number.
double number_of(const OrderedJson& segment, const char* name) {
  const auto found = segment.find(name);
  return found != segment.end() && found->is_number() ? found->get<double>() : 0;
}

// Seconds along x; the highest bar is as high as the drawing. The best segment is the first.
std::string time_line(const OrderedJson& segments, double duration_s) {
  double most = 1e-300;
  for (const OrderedJson& segment : segments) {
    most = std::max(most, number_of(segment, "probability"));
  }
  std::string bars;
  for (const OrderedJson& segment : segments) {
    const double start_s = number_of(segment, "start_s"), end_s = number_of(segment, "end_s");
    const double probability = number_of(segment, "probability");
    const double height = 100 * probability / most;
    bars +=
        concat("<rect", bars.empty() ? " class=\"best\"" : "", " x=\"", start_s, "\" y=\"",
               100 - height, "\" width=\"", end_s - start_s, "\" height=\"", height, "\"><title>",
               start_s, " s to ", end_s, " s: probability ", probability, "</title></rect>");
  }
  return concat("<svg viewBox=\"0 0 ", duration_s, " 100\" preserveAspectRatio=\"none\">", bars,
                "</svg>\n<div class=\"ends\"><span>0 s</span><span>", duration_s,
                " s</span></div>\n");
}

}  // namespace

void SegmentPage::add(const OrderedJson& row) {
  rows_ += concat("<section><b>", text_of(row, "question"), "</b> ", text_of(row, "path"), "\n");
  const auto segments = row.find("segments");
  if (segments == row.end() || !segments->is_array() || segments->empty()) {
    rows_ += concat("<p class=\"error\">", text_of(row, "error"), "</p></section>\n");
    return;
  }
  double duration_s = 0;  // a file may not say its own
  for (const OrderedJson& segment : *segments) {
    duration_s = std::max(duration_s, number_of(segment, "end_s"));
  }
  duration_s = std::max(duration_s, number_of(row, "duration_s"));
  rows_ += concat("<p>", text_of(row, "text"), ", probability ",
                  number_of((*segments)[0], "probability"), "</p>\n",
                  time_line(*segments, duration_s), "</section>\n");
}

std::string SegmentPage::text() const {
  return concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Moments</title>\n<style>",
      kSegmentStyle,
      "</style></head>\n<body>\n<h1>Moments</h1>\n<p>Bars are segments of the clip, ",
      "as high as the answer is likely in them beside the likeliest. The best one is dark.</p>\n",
      rows_, "</body></html>\n");
}

}  // namespace vlm::infer
