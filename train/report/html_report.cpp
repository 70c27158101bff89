#include "train/report/html_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/media/thumbnail.h"
#include "data/metrics/metric.h"
#include "train/report/svg_chart.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/core/run/progress.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kThumbnailSide = 440;  // twice what is shown, for dense screens
constexpr std::int64_t kMostThumbnails = 12;  // of an item, with which its card is complete enough

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;background:#f3f4f6;margin:0}
main{max-width:1100px;margin:0 auto;padding:16px 24px}
section,details{background:#fff;border:1px solid #e5e7eb;border-radius:8px;padding:12px 20px;
margin:12px 0}
h1{font-size:22px;margin:4px 0}h2,summary{font-size:17px;font-weight:700;margin:0 0 8px}
summary{cursor:pointer;margin:0}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:4px 10px 4px 0;border-bottom:1px solid #f0f0f0}
th{font-weight:600;white-space:nowrap}
.results{display:flex;flex-wrap:wrap;gap:8px 48px}
.figure{font-size:32px;line-height:1.2}.figure .before{color:#6b7280}
.rise{color:#15803d}.fall{color:#b91c1c}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:16px}
svg{width:100%;height:auto}.title{font-size:13px;font-weight:600}
.tick{font-size:11px;fill:#6b7280}.grid{stroke:#e5e7eb}
.samples{display:flex;flex-wrap:wrap;gap:12px}
.sample{flex:0 0 222px;border:1px solid #e5e7eb;border-radius:6px;padding:8px;
overflow-wrap:anywhere}.sample th{width:1%}
.media{display:grid;gap:2px;margin-bottom:6px}.media.many{grid-template-columns:1fr 1fr}
.media img{width:100%;height:160px;object-fit:contain;display:block}.media.many img{height:80px}
.muted{color:#6b7280}td.value,code{font-family:ui-monospace,monospace}
td.value{overflow-wrap:anywhere}
)";

std::string table_row(const std::string& name, const std::string& value, const char* kind = "") {
  return concat("<tr><th>", escape_html(name), "</th><td class=\"", kind, "\">", escape_html(value),
                "</td></tr>\n");
}

std::string section(const std::string& title, const std::string& content) {
  if (content.empty()) return "";
  return concat("<section><h2>", escape_html(title), "</h2>\n", content, "</section>\n");
}

// "0.25 → 0.75" in large figures with a note below; "0.75" when there is nothing before.
std::string show_change(const std::string& name, std::optional<double> before, double after,
                        const std::string& note) {
  std::string former;
  if (before) former = concat("<span class=\"before\">", format_number(*before), "</span> → ");
  return concat("<div><div>", escape_html(name), "</div><div class=\"figure\">", former, "<b>",
                format_number(after), "</b></div>", note, "</div>\n");
}

// What the interval says: that the scores rose or fell, or that these items can't tell. What is
// better is shown as a rise.
std::string describe_change(const std::string& metric, const data::PairedComparison& values) {
  const bool is_more = values.low > 0, is_less = values.high < 0;
  const bool less_is_better = data::is_less_better(metric);
  const bool rose = less_is_better ? is_less : is_more, fell = less_is_better ? is_more : is_less;
  return concat("<div class=\"",
                rose   ? "rise"
                : fell ? "fall"
                       : "muted",
                "\">", values.difference > 0 ? "+" : "", format_number(values.difference),
                " (95 % interval ", format_number(values.low), " to ", format_number(values.high),
                rose || fell ? ")" : "): no clear difference", "</div><div class=\"muted\">",
                values.better, " of ", values.items, " items better, ", values.worse,
                " worse</div>");
}

std::string show_result(const RunRecord& record) {
  std::string changes;
  for (const auto& [metric, values] : record.comparisons) {
    changes += show_change(metric, values.before, values.after, describe_change(metric, values));
  }
  for (const auto& [name, key] :
       {std::pair{"evaluation loss", "eval_loss"}, std::pair{"training loss", "loss"}}) {
    const std::optional<double> result = record.result(key);
    if (!result) continue;
    const auto curve = record.curve(key);
    const auto [first_step, first] = curve.front();
    if (curve.size() == 1) {
      changes += show_change(name, {}, *result, "");
    } else {
      changes += show_change(
          name, first, *result,
          concat("<div class=\"muted\">since step ", format_number(first_step), "</div>"));
    }
  }
  if (changes.empty()) return "";
  const char* note = record.comparisons.empty()
                         ? "The result was not compared with the untuned model: that needs "
                           "eval_files and eval_metrics."
                         : "Before → after training, on the same held-out items. The interval is a "
                           "paired bootstrap over items.";
  return concat("<div class=\"results\">", changes, "</div>\n<p class=\"muted\">", note, "</p>\n");
}

std::string tell_missing(const std::string& error) {
  log_warning("the report shows no picture of a sample: " + error);
  return concat("<p class=\"fall\">not shown: ", escape_html(error), "</p>\n");
}

// One picture in full width, several in two columns; frames of clips stand among them.
std::string show_media(const ReportOptions& options, std::int64_t index) {
  if (!options.media) return "";
  std::vector<data::Thumbnail> pictures;
  std::string problems;
  std::int64_t media = 0, shown = 0;
  try {
    for (const data::MediaRef& medium : options.media(index)) {
      ++media;
      if (std::ssize(pictures) >= kMostThumbnails) continue;
      ++shown;
      const auto made = data::make_thumbnails(medium, {.max_side = kThumbnailSide});
      pictures.insert(pictures.end(), made.pictures.begin(), made.pictures.end());
      if (!made.error.empty()) problems += tell_missing(made.error);
    }
  } catch (const Error& error) {
    problems += tell_missing(error.what());
  }
  std::string images;
  for (const data::Thumbnail& picture : pictures) {
    const std::string title = escape_html(picture.title);
    images += concat("<img alt=\"", title, "\" title=\"", title, "\" src=\"", picture.uri, "\">");
  }
  if (!images.empty()) {
    images =
        concat("<div class=\"media", pictures.size() > 1 ? " many" : "", "\">", images, "</div>\n");
  }
  if (media > shown) images += concat("<p class=\"muted\">and ", media - shown, " more</p>\n");
  return images + problems;
}

// Samples from all over the evaluation set: pictures, question, and the answers.
std::string show_samples(const RunRecord& record, const ReportOptions& options) {
  std::string samples;
  const auto count = std::min<std::int64_t>(options.samples, std::ssize(record.after));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto place = static_cast<std::size_t>(i * std::ssize(record.after) / count);
    const HeldOutAnswer& item = record.after[place];
    std::string rows;
    if (place < record.before.size() && record.before[place].index == item.index) {
      rows += table_row("before", record.before[place].answer);
    }
    rows += table_row("after", item.answer) + table_row("wanted", join(item.references, " | "));
    samples += concat("<div class=\"sample\">", show_media(options, item.index), "<b>",
                      escape_html(item.question), "</b><table>", rows,
                      "</table><span class=\"muted\">", escape_html(item.where), "</span></div>\n");
  }
  return samples.empty() ? "" : "<div class=\"samples\">" + samples + "</div>\n";
}

// Curves that belong together, then one chart for every other number.
std::string draw_curves(const RunRecord& record) {
  std::string charts;
  const auto add = [&](const std::string& title, const std::vector<std::string>& keys,
                       Scale scale = Scale::kLinear) {
    Chart chart{.title = title, .scale = scale};
    for (const std::string& key : keys) {
      auto points = record.curve(key);
      if (!points.empty()) chart.series.push_back({key, std::move(points)});
    }
    const std::string drawn = draw_chart(chart);
    if (!drawn.empty()) charts += "<div>" + drawn + "</div>\n";
  };
  add("loss", {"loss", "eval_loss"}, Scale::kLogWhereWide);
  for (const std::string& key : record.keys()) {
    const bool is_drawn_elsewhere = key == "loss" || key == "eval_loss" || key == "epoch" ||
                                    key == "seconds" || key == "peak_rss_mb" ||
                                    key == "peak_device_mb";
    if (!is_drawn_elsewhere) add(key, {key});
  }
  return charts.empty() ? "" : "<div class=\"charts\">" + charts + "</div>\n";
}

// How the run went: its length, speed and memory.
std::string list_course(const RunRecord& record) {
  std::string rows;
  const auto seconds = record.curve("seconds"), speed = record.curve("samples_per_second"),
             memory = record.curve("peak_rss_mb"), epochs = record.curve("epoch");
  if (!record.rows.empty()) {
    rows += table_row("steps", record.rows.back()["step"].dump(), "value");
  }
  if (record.result_step) {
    rows += table_row("step of the weights", concat(*record.result_step), "value");
  }
  if (!epochs.empty()) {
    rows += table_row("epochs", format_number(epochs.back().second), "value");
  }
  if (!seconds.empty()) {
    rows += table_row("training time", format_duration(seconds.back().second), "value");
  }
  if (!speed.empty()) {
    std::vector<double> values;
    for (const auto& [step, value] : speed) values.push_back(value);
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    rows += table_row("samples per second (median of the rows)",
                      format_number(values[values.size() / 2]), "value");
  }
  if (!memory.empty()) {
    double most = 0;
    for (const auto& [step, value] : memory) most = std::max(most, value);
    rows += table_row("peak memory of the process", format_number(most) + " MB", "value");
  }
  return rows.empty() ? "" : "<table>" + rows + "</table>\n";
}

std::string list_config(const OrderedJson& config) {
  std::string rows;
  for (const auto& [key, value] : config.items()) {
    rows += table_row(key, value.is_string() ? value.get<std::string>() : value.dump(), "value");
  }
  return rows.empty() ? "" : "<table>" + rows + "</table>\n";
}

}  // namespace

std::string make_report(const RunRecord& record, const ReportOptions& options) {
  const std::string model = record.config.value("model_name_or_path", "");
  const std::string title = concat(describe_method(record.config), " fine-tuning of ", model);
  return concat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
      escape_html(title), "</title>\n<style>", kStyle, "</style></head>\n<body><main>\n", "<h1>",
      escape_html(title), "</h1>\n", section("Result", show_result(record)),
      section("Held-out samples", show_samples(record, options)),
      section("Curves", draw_curves(record)), section("Course of the run", list_course(record)),
      "<details><summary>Configuration</summary>\n", list_config(record.config),
      "</details>\n</main></body></html>\n");
}

}  // namespace vlm::train
