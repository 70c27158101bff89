#include "train/inspect/survey.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "data/preview.h"
#include "vlm/core/run/progress.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/ordered_workers.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kAheadAThread = 4;  // samples: pictures take unequal times

// What the survey keeps of one sample.
struct Facts {
  std::int64_t tokens = 0, labels = 0, tiles = 0, media = 0, cut_tokens = 0, cut_labels = 0;
  data::Preview::Problem problem = data::Preview::Problem::kNone;
  std::string reason;
  std::string off_schema;  // the first answer's fault
};

// Why one of the sample's answers doesn't satisfy the schema; "": all do.
std::string find_off_schema(const data::Sample& sample, const JsonSchema& schema) {
  for (const Message& message : sample.messages) {
    if (message.role != "assistant") continue;
    std::string text = message.plain_content.value_or("");
    for (const ContentPart& part : message.content) text += part.text;
    const OrderedJson value = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
    std::string fault = value.is_discarded() ? "no JSON" : schema.find_fault(value);
    if (!fault.empty()) return fault;
  }
  return "";
}

Facts measure_facts(const data::Preview& preview, const JsonSchema* schema) {
  const bool is_read = preview.problem != data::Preview::Problem::kBad;
  return {.tokens = static_cast<std::int64_t>(preview.example.ids.size()),
          .labels = preview.labels(),
          .tiles = preview.tiles,
          .media = static_cast<std::int64_t>(preview.texts.size()),
          .cut_tokens = preview.example.cut_tokens,
          .cut_labels = preview.cut_labels(),
          .problem = preview.problem,
          .reason = preview.reason,
          .off_schema = schema && is_read ? find_off_schema(preview.sample, *schema) : ""};
}

// The next number that is 1, 2 or 5 times a power of ten.
std::int64_t round_up(std::int64_t value) {
  for (std::int64_t power = 1;; power *= 10) {
    for (const std::int64_t digit : {1, 2, 5}) {
      if (digit * power >= value) return digit * power;
    }
  }
}

void add(Survey& survey, const Facts& facts, std::int64_t index, const std::string& where,
         std::int64_t& longest) {
  using Problem = data::Preview::Problem;
  ++survey.samples;
  if (!facts.off_schema.empty()) survey.off_schema.push_back(where + ": " + facts.off_schema);
  if (facts.problem == Problem::kBad) survey.bad.push_back(facts.reason);
  if (facts.problem == Problem::kTooLong) survey.too_long.push_back(facts.reason);
  if (facts.problem == Problem::kNothingLearned) survey.nothing_learned.push_back(facts.reason);
  if (facts.problem != Problem::kNone) return;
  if (facts.tokens > longest) {
    longest = facts.tokens;
    survey.longest = index;
  }
  survey.lengths.push_back(facts.tokens);
  survey.labels += facts.labels;
  survey.tiles += facts.tiles;
  survey.media += facts.media;
  survey.text_only += facts.media == 0 ? 1 : 0;
  survey.cut += facts.cut_tokens > 0 ? 1 : 0;
  if (facts.cut_labels > 0) survey.cut_answers.push_back(where);
}

}  // namespace

std::int64_t Survey::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

Survey survey_dataset(const data::Dataset& dataset, const Processor& processor,
                      const data::EncodeOptions& options, std::int64_t threads,
                      const JsonSchema* schema) {
  data::MediaTexts texts(processor, options.video);
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  OrderedWorkers<std::int64_t, Facts> workers(
      {.name = "vlm survey", .workers = threads, .ahead = kAheadAThread * threads},
      {.open = [&, next = std::int64_t{0}]() mutable -> std::optional<std::int64_t> {
         if (next == dataset.size() || stop_requested()) return std::nullopt;
         return next++;
       },
       .make =
           [&](std::int64_t index, auto& output) {
             output.put(measure_facts(
                 data::preview_sample(dataset, index, processor, options, texts), schema));
           }});
  Progress progress("samples", dataset.size());
  Survey survey{.bound = options.bound(processor.max_positions())};
  std::int64_t longest = -1, index = 0;
  while (const std::optional<Facts> facts = workers.next()) {
    const bool is_named = facts->cut_labels > 0 || !facts->off_schema.empty();
    add(survey, *facts, index, is_named ? dataset.where(index) : "", longest);
    progress.update(++index);
  }
  survey.is_whole = index == dataset.size();
  return survey;
}

std::int64_t quantile(const std::vector<std::int64_t>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

std::vector<HistogramRow> make_histogram(const std::vector<std::int64_t>& values,
                                         std::int64_t count) {
  if (values.empty()) return {};
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const std::int64_t width = round_up((*most - *least) / count + 1);
  const std::int64_t first = *least / width;
  std::vector<HistogramRow> rows(static_cast<std::size_t>(*most / width - first + 1));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t from = (first + static_cast<std::int64_t>(i)) * width;
    rows[i] = {.from = from, .to = from + width - 1};
  }
  for (const std::int64_t value : values)
    ++rows[static_cast<std::size_t>(value / width - first)].count;
  return rows;
}

}  // namespace vlm::train
