#include "train/inspect/inspect_page.h"

#include <algorithm>

#include "data/media/thumbnail.h"
#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kThumbnailSide = 256;  // pixels
constexpr std::int64_t kFrameSide = 160;      // of a clip, several of which stand side by side
constexpr std::int64_t kBars = 20;

constexpr const char* kStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
section { border-top: 1px solid #ddd; padding: .5rem 0 1rem; }
.tokens { font-family: ui-monospace, monospace; font-size: 13px; white-space: pre-wrap;
          overflow-wrap: anywhere; }
.tokens span { border-right: 1px solid #ddd; }
.tokens .learned { background: #c9f0cf; border-right-color: #7cc98a; }
.tokens .medium { background: #d6e4fb; }
.tokens .cut { color: #999; text-decoration: line-through; }
figure { display: inline-block; margin: .25rem .5rem .25rem 0; vertical-align: top;
         max-width: 256px; } figure.clip { max-width: 100%; } figcaption { color: #666; font-size: 12px; }
.picture { position: relative; display: inline-block; border: 1px solid #ddd; }
.picture img { display: block; max-width: 256px; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.tiles path { fill: none; vector-effect: non-scaling-stroke; }
table { border-collapse: collapse; } td { padding: .1rem .75rem .1rem 0; vertical-align: top; }
.bar { background: #7cc98a; height: .8rem; min-width: 1px; }
.error { color: #a40000; } .warning { color: #8a5a00; }
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\n':
        out += "↵\n";
        break;
      default:
        out += c;
    }
  }
  return out;
}

const char* class_of(TokenView::Kind kind) {
  switch (kind) {
    case TokenView::Kind::kLearned:
      return "learned";
    case TokenView::Kind::kMedium:
      return "medium";
    case TokenView::Kind::kCut:
      return "cut";
    default:
      return "";
  }
}

// The borders of the tiles that a picture is cut into, over the picture: dark on light, so that
// they are seen on any colour.
std::string tile_grid(const MediumText& text) {
  if (text.rows == 0) return "";
  std::string lines;
  for (std::int64_t x = 1; x < text.cols; ++x) lines += concat("M", x, " 0V", text.rows);
  for (std::int64_t y = 1; y < text.rows; ++y) lines += concat("M0 ", y, "H", text.cols);
  const std::string path = concat("<path d=\"", lines, "\" stroke=\"");
  return concat("<svg class=\"tiles\" viewBox=\"0 0 ", text.cols, " ", text.rows,
                "\" preserveAspectRatio=\"none\">", path, "#fff\" stroke-width=\"3\"/>", path,
                "#000\" stroke-width=\"1\"/></svg>");
}

// A picture with the tiles that the processor cuts, or frames of a clip; the caption says what the
// medium became, where the sample became something.
std::string figure_of(const data::MediaRef& medium, const MediumText* text, std::int64_t number) {
  const bool is_clip = medium.kind == data::MediaKind::kVideo;
  const std::int64_t side = is_clip ? kFrameSide : kThumbnailSide;
  const data::MediumThumbnails made = data::make_thumbnails(medium, {.max_side = side});
  if (!made.error.empty()) return concat("<p class=\"error\">", escaped(made.error), "</p>\n");
  std::string images;
  for (const data::Thumbnail& picture : made.pictures) {
    const std::string title = escaped(picture.title);
    images +=
        concat("<span class=\"picture\"><img src=\"", picture.uri, "\" alt=\"", title,
               "\" title=\"", title, "\">", text && !is_clip ? tile_grid(*text) : "", "</span>");
  }
  return concat(
      "<figure", is_clip ? " class=\"clip\"" : "", ">", images, "<figcaption>",
      text ? describe_medium(*text, number) : concat(is_clip ? "clip " : "picture ", number),
      is_clip ? ": " + escaped(medium.name) : "", "</figcaption></figure>\n");
}

std::string sample_of(const ShownSample& sample, std::size_t number) {
  const data::Preview& preview = sample.preview;
  const bool is_bad = preview.problem != data::Preview::Problem::kNone;
  std::string html = concat("<section><p", is_bad ? " class=\"error\"" : "", ">", number, ". ",
                            escaped(headline(preview)), "</p>\n");
  for (std::size_t i = 0; i < preview.sample.media.size(); ++i) {
    const MediumText* text = i < preview.texts.size() ? &preview.texts[i] : nullptr;
    html += figure_of(preview.sample.media[i], text, static_cast<std::int64_t>(i) + 1);
  }
  html += "<div class=\"tokens\">";
  for (const TokenView& token : sample.tokens) {
    const std::string title = token.id >= 0 ? concat(" title=\"", token.id, "\"") : "";
    html += concat("<span class=\"", class_of(token.kind), "\"", title, ">", escaped(token.text),
                   "</span>");
  }
  return html + "</div></section>\n";
}

std::string histogram_html(const Survey& survey) {
  const auto rows = make_histogram(survey.lengths, kBars);
  std::int64_t most = 1;
  for (const HistogramRow& row : rows) most = std::max(most, row.count);
  std::string html = "<table>\n";
  for (const HistogramRow& row : rows) {
    html += concat("<tr><td>", row.from, " – ", row.to, "</td><td>", row.count,
                   "</td><td><div class=\"bar\" style=\"width:", 300 * row.count / most,
                   "px\"></div></td></tr>\n");
  }
  return html + "</table>\n";
}

std::string set_of(const SurveyedSet& set, const TrainConfig& config) {
  std::string html = concat("<h2>", escaped(set.name), "</h2>\n<table>\n");
  for (const Fact& fact : list_facts(set)) {
    html += concat("<tr><td>", fact.name, "</td><td>", escaped(fact.value), "</td></tr>\n");
  }
  html += "</table>\n";
  for (const Complaint& complaint : find_complaints(set, config)) {
    html += concat("<p class=\"", complaint.is_error ? "error" : "warning", "\">",
                   escaped(complaint.text), "</p>\n<ul>\n");
    for (const std::string& sample : complaint.samples) {
      html += concat("<li>", escaped(sample), "</li>\n");
    }
    html += "</ul>\n";
  }
  if (!set.survey.lengths.empty()) html += "<p>Tokens a sample</p>\n" + histogram_html(set.survey);
  return html;
}

}  // namespace

std::string to_page(const InspectReport& report) {
  std::string html = concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>Training data</title>\n<style>",
      kStyle, "</style></head>\n<body>\n<h1>Training data for ",
      escaped(report.config.model_name_or_path), "</h1>\n");
  for (const SurveyedSet& set : report.sets) html += set_of(set, report.config);
  html +=
      "<h2>Samples</h2>\n<p>Green is learned, blue a picture or clip. Lines over a picture are the "
      "borders of its tiles; where there are tiles, the model also sees the whole picture as one "
      "more.</p>\n";
  for (std::size_t i = 0; i < report.shown.size(); ++i) html += sample_of(report.shown[i], i + 1);
  return html + "</body></html>\n";
}

}  // namespace vlm::train
