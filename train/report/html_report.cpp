#include "train/report/html_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/report/svg_chart.h"
#include "vlm/core/concat.h"
#include "vlm/core/run/progress.h"

namespace vlm::train {
namespace {

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;background:#f3f4f6;margin:0}
main{max-width:1000px;margin:0 auto;padding:24px}
section{background:#fff;border:1px solid #e5e7eb;border-radius:8px;padding:16px 20px;margin:16px 0}
h1{font-size:24px;margin:8px 0}h2{font-size:17px;margin:0 0 12px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:4px 10px 4px 0;border-bottom:1px solid #f0f0f0}
th{font-weight:600;white-space:nowrap}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:16px}
svg{width:100%;height:auto}.title{font-size:13px;font-weight:600}
.tick{font-size:11px;fill:#6b7280}.grid{stroke:#e5e7eb}
.sample{display:flex;gap:16px;padding:12px 0;border-bottom:1px solid #f0f0f0}
.sample .pictures{flex:0 0 220px}.sample img{max-width:220px;display:block;margin-bottom:6px}
.sample table{flex:1}.muted{color:#6b7280}td.value,code{font-family:ui-monospace,monospace}
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

// Curves that belong together, then one chart for every other number.
std::string draw_curves(const RunRecord& record) {
  std::string charts;
  const auto add = [&](const std::string& title, const std::vector<std::string>& keys) {
    Chart chart{.title = title};
    for (const std::string& key : keys) {
      auto points = record.curve(key);
      if (!points.empty()) chart.series.push_back({key, std::move(points)});
    }
    const std::string drawn = draw_chart(chart);
    if (!drawn.empty()) charts += "<div>" + drawn + "</div>\n";
  };
  add("loss", {"loss", "eval_loss"});
  for (const std::string& key : record.keys()) {
    const bool is_drawn_elsewhere = key == "loss" || key == "eval_loss" || key == "epoch" ||
                                    key == "seconds" || key == "peak_rss_mb";
    if (!is_drawn_elsewhere) add(key, {key});
  }
  return charts.empty() ? "" : "<div class=\"charts\">" + charts + "</div>\n";
}

std::string list_results(const RunRecord& record) {
  std::string rows;
  const auto last = [&](const char* title, const char* key) {
    const auto curve = record.curve(key);
    if (!curve.empty()) rows += table_row(title, format_number(curve.back().second), "value");
  };
  if (!record.rows.empty()) {
    rows += table_row("steps", record.rows.back()["step"].dump(), "value");
  }
  last("epochs", "epoch");
  last("training loss (mean since the row before)", "loss");
  if (record.result_step) {
    rows += table_row("step of the weights", concat(*record.result_step), "value");
  }
  const auto eval_loss = record.result("eval_loss");
  if (eval_loss) rows += table_row("evaluation loss", format_number(*eval_loss), "value");
  return rows.empty() ? "" : "<table>" + rows + "</table>\n";
}

std::string list_costs(const RunRecord& record) {
  std::string rows;
  const auto seconds = record.curve("seconds"), speed = record.curve("samples_per_second"),
             memory = record.curve("peak_rss_mb");
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

std::string list_comparisons(const RunRecord& record) {
  std::string rows;
  for (const auto& [metric, values] : record.comparisons) {
    rows += concat("<tr><th>", metric, "</th><td>", format_number(values.before), "</td><td>",
                   format_number(values.after), "</td><td>", format_number(values.difference),
                   "</td><td>", format_number(values.low), " to ", format_number(values.high),
                   "</td><td>", values.better, " / ", values.worse, " of ", values.items,
                   "</td></tr>\n");
  }
  if (rows.empty()) return "";
  return "<table><tr><th>metric</th><th>before</th><th>after</th><th>difference</th>"
         "<th>95 % interval</th><th>items better / worse</th></tr>\n" +
         rows +
         "</table>\n<p class=\"muted\">The same held-out items before and after; paired bootstrap "
         "over items.</p>\n";
}

std::string show_samples(const RunRecord& record, const ReportOptions& options) {
  std::string samples;
  const auto count = std::min<std::int64_t>(options.samples, std::ssize(record.after));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto place = static_cast<std::size_t>(i * std::ssize(record.after) / count);
    const HeldOutAnswer& item = record.after[place];
    std::string pictures;
    if (options.pictures) {
      for (const std::string& uri : options.pictures(item.index)) {
        pictures += concat("<img alt=\"\" src=\"", uri, "\">");
      }
    }
    std::string rows = table_row("question", item.question);
    if (place < record.before.size() && record.before[place].index == item.index) {
      rows += table_row("before", record.before[place].answer);
    }
    rows += table_row("after", item.answer) + table_row("reference", join(item.references, " | "));
    samples +=
        concat("<div class=\"sample\"><div class=\"pictures\">", pictures, "<span class=\"muted\">",
               escape_html(item.where), "</span></div><table>", rows, "</table></div>\n");
  }
  return samples;
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
      escape_html(title), "</h1>\n", section("Result", list_results(record)),
      section("Compared with the untuned model", list_comparisons(record)),
      section("Curves", draw_curves(record)), section("Memory and time", list_costs(record)),
      section("Held-out samples", show_samples(record, options)),
      section("Configuration", list_config(record.config)), "</main></body></html>\n");
}

}  // namespace vlm::train
