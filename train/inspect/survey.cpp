#include "train/inspect/survey.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "data/preview.h"
#include "vlm/core/progress.h"
#include "vlm/core/stop_signal.h"

namespace vlm::train {
namespace {

// What the survey keeps of one sample.
struct Facts {
  std::int64_t tokens = 0, labels = 0, tiles = 0, media = 0, cut_tokens = 0, cut_labels = 0;
  data::Preview::Problem problem = data::Preview::Problem::kNone;
  std::string reason;
  bool is_seen = false;
};

Facts facts_of(const data::Preview& preview) {
  return {.tokens = static_cast<std::int64_t>(preview.example.ids.size()),
          .labels = preview.labels(),
          .tiles = preview.tiles,
          .media = static_cast<std::int64_t>(preview.texts.size()),
          .cut_tokens = preview.example.cut_tokens,
          .cut_labels = preview.cut_labels(),
          .problem = preview.problem,
          .reason = preview.reason,
          .is_seen = true};
}

// Runs `look` for 0 … size - 1 in threads; the first exception ends it.
template <typename Look>
void look_in_threads(std::int64_t size, std::int64_t threads, const Look& look) {
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  Progress progress("samples", size);
  std::atomic<std::int64_t> next{0}, done{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&](bool reports) {
    try {
      for (std::int64_t i = next++; i < size && !stop_requested(); i = next++) {
        look(i);
        const std::int64_t finished = ++done;
        if (reports) progress.update(finished);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      next = size;
    }
  };
  std::vector<std::thread> others;
  for (std::int64_t i = 1; i < std::min(threads, size); ++i) others.emplace_back(work, false);
  work(true);
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
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
                      const data::EncodeOptions& options, std::int64_t threads) {
  data::MediaTexts texts(processor, options.video);
  std::vector<Facts> facts(static_cast<std::size_t>(dataset.size()));
  look_in_threads(dataset.size(), threads, [&](std::int64_t i) {
    facts[static_cast<std::size_t>(i)] =
        facts_of(data::preview_sample(dataset, i, processor, options, texts));
  });
  Survey survey{.bound = options.bound(processor.max_positions())};
  std::int64_t longest = -1;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    const Facts& one = facts[static_cast<std::size_t>(i)];
    if (one.is_seen) {
      add(survey, one, i, one.cut_labels > 0 ? dataset.where(i) : "", longest);
    } else {
      survey.is_whole = false;
    }
  }
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
