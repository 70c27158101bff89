#include "train/inspect/inspect_report.h"

#include <algorithm>

#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

constexpr std::size_t kMostListed = 10;
constexpr std::int64_t kHistogramRows = 12;

std::string plural(std::int64_t count, const std::string& singular_noun,
                   const std::string& plural_noun) {
  return concat(count, " ", count == 1 ? singular_noun : plural_noun);
}

std::string percent(std::int64_t part, std::int64_t whole) {
  const double share =
      whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
  return fixed_text(share, 1) + " %";
}

std::vector<std::string> first_of(const std::vector<std::string>& all) {
  return {all.begin(),
          all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), kMostListed))};
}

std::string padded(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

std::string histogram_of(const Survey& survey) {
  const auto rows = make_histogram(survey.lengths, kHistogramRows);
  std::int64_t most = 1;
  std::size_t width = 1;
  for (const HistogramRow& row : rows) {
    most = std::max(most, row.count);
    width = std::max(width, std::to_string(row.to).size());
  }
  std::string text;
  for (const HistogramRow& row : rows) {
    const std::string bar(static_cast<std::size_t>((row.count * 40 + most - 1) / most), '#');
    text += concat("  ", padded(std::to_string(row.from), width), " - ",
                   padded(std::to_string(row.to), width), "  ", bar, bar.empty() ? "" : " ",
                   row.count, "\n");
  }
  return text;
}

std::string text_of(const SurveyedSet& set, const TrainConfig& config) {
  std::string text = concat("\n== ", set.name, "\n");
  for (const Fact& fact : list_facts(set)) text += concat("  ", fact.name, ": ", fact.value, "\n");
  if (!set.survey.lengths.empty()) text += "tokens a sample\n" + histogram_of(set.survey);
  for (const Complaint& complaint : find_complaints(set, config)) {
    text += concat(complaint.is_error ? "ERROR: " : "warning: ", complaint.text, "\n");
    for (const std::string& sample : complaint.samples) text += concat("    ", sample, "\n");
  }
  return text;
}

}  // namespace

void InspectReport::add(const std::string& name, const data::Dataset& dataset, Survey survey) {
  SurveyedSet set{.name = name, .survey = std::move(survey)};
  if (set.survey.longest >= 0) set.longest = dataset.where(set.survey.longest);
  sets.push_back(std::move(set));
}

bool InspectReport::is_trainable() const {
  for (const SurveyedSet& set : sets) {
    for (const Complaint& complaint : find_complaints(set, config)) {
      if (complaint.is_error) return false;
    }
  }
  return true;
}

std::string headline(const data::Preview& preview) {
  if (preview.problem != data::Preview::Problem::kNone) return preview.reason;
  std::string line = concat(preview.sample.where, " · ", preview.example.ids.size(), " tokens, ",
                            preview.labels(), " learned");
  const auto media = static_cast<std::int64_t>(preview.texts.size());
  if (media > 0) {
    line += concat(" · ", plural(media, "picture or clip", "pictures and clips"), ", ",
                   plural(preview.tiles, "tile", "tiles"));
  }
  if (preview.example.cut_tokens > 0) {
    line += concat(" · ", preview.example.cut_tokens, " tokens cut off, ", preview.cut_labels(),
                   " of them learned");
  }
  return line;
}

std::vector<Fact> list_facts(const SurveyedSet& set) {
  const Survey& survey = set.survey;
  std::vector<std::int64_t> sorted = survey.lengths;
  std::sort(sorted.begin(), sorted.end());
  const auto usable = static_cast<std::int64_t>(sorted.size());
  std::vector<Fact> facts = {{"samples", concat(survey.samples, ", usable ", usable,
                                                survey.is_whole ? "" : " (stopped)")}};
  if (usable == 0) return facts;
  facts.push_back({"tokens", concat(survey.tokens(), ", learned ", survey.labels, " (",
                                    percent(survey.labels, survey.tokens()), ")")});
  facts.push_back({"tokens a sample",
                   concat("least ", sorted.front(), ", median ", quantile(sorted, 0.5), ", mean ",
                          survey.tokens() / usable, ", 95 % up to ", quantile(sorted, 0.95),
                          ", most ", sorted.back(), " (", set.longest, ")")});
  facts.push_back({"pictures and clips", concat(survey.media, ", tiles ", survey.tiles,
                                                ", samples of text alone ", survey.text_only)});
  if (survey.cut > 0)
    facts.push_back({concat("cut to ", survey.bound.key), concat(survey.cut, " samples")});
  return facts;
}

std::vector<Complaint> find_complaints(const SurveyedSet& set, const TrainConfig& config) {
  const Survey& survey = set.survey;
  std::vector<Complaint> complaints;
  const auto nothing = static_cast<std::int64_t>(survey.nothing_learned.size());
  if (nothing > 0) {
    complaints.push_back(
        {.is_error = true,
         .text = plural(nothing, "sample has", "samples have") + std::string(" nothing to learn"),
         .samples = first_of(survey.nothing_learned)});
  }
  std::vector<std::string> bad = survey.bad;
  const bool skips_long = config.length_policy == "skip";
  if (!skips_long) bad.insert(bad.end(), survey.too_long.begin(), survey.too_long.end());
  if (!bad.empty()) {
    const auto count = static_cast<std::int64_t>(bad.size());
    complaints.push_back(
        {.is_error = count + nothing > config.max_bad_samples,
         .text = concat(plural(count, "sample", "samples"), " can't be used; max_bad_samples is ",
                        config.max_bad_samples),
         .samples = first_of(bad)});
  }
  if (survey.lengths.empty() && survey.is_whole) {
    complaints.push_back({.is_error = true, .text = "no sample is left to train on"});
  }
  if (!survey.cut_answers.empty()) {
    const auto count = static_cast<std::int64_t>(survey.cut_answers.size());
    complaints.push_back({.text = concat(plural(count, "answer is", "answers are"), " cut off by ",
                                         survey.bound.key, " ", survey.bound.tokens),
                          .samples = first_of(survey.cut_answers)});
  }
  if (!survey.off_schema.empty()) {
    const auto count = static_cast<std::int64_t>(survey.off_schema.size());
    complaints.push_back(
        {.text = concat(plural(count, "sample has an answer", "samples have answers"),
                        " that json_schema doesn't allow"),
         .samples = first_of(survey.off_schema)});
  }
  if (skips_long && !survey.too_long.empty()) {
    const auto count = static_cast<std::int64_t>(survey.too_long.size());
    complaints.push_back({.text = concat(plural(count, "sample is", "samples are"),
                                         " too long and will be passed over"),
                          .samples = first_of(survey.too_long)});
  }
  return complaints;
}

std::string to_text(const InspectReport& report, bool uses_color) {
  std::string text;
  for (std::size_t i = 0; i < report.shown.size(); ++i) {
    const ShownSample& sample = report.shown[i];
    text += concat(i > 0 ? "\n" : "", "-- ", i + 1, ". ", headline(sample.preview), "\n");
    const std::string tokens = render_tokens(sample.tokens, uses_color);
    text += tokens;
    if (!tokens.empty() && !tokens.ends_with('\n')) text += "\n";
  }
  for (const SurveyedSet& set : report.sets) text += text_of(set, report.config);
  return text;
}

}  // namespace vlm::train
