#include "infer/server/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostRecent = 256;
constexpr double kRecent = 60;  // seconds
constexpr double kGuess = 0.2;  // requests a second, when none has finished lately

struct Family {
  const char* name;
  const char* help;
};

constexpr Family kCounters[] = {
    {"requests_total", "HTTP requests by path and status."},
    {"request_finished_total", "Answers by model and how they ended."},
    {"requests_rejected_total", "Requests that were refused, by reason."},
    {"prompt_tokens_total", "Tokens of prompts, those of pictures among them."},
    {"image_tokens_total", "Tokens of prompts that stand for pictures and clips."},
    {"cached_tokens_total", "Tokens of prompts that were computed for an earlier request."},
    {"generation_tokens_total", "Tokens of answers, the end token included."},
    {"pictures_total", "Pictures that were decoded."},
    {"video_frames_total", "Frames of clips that were decoded."},
    {"lora_requests_total", "Requests that named an adapter."},
    {"ignored_fields_total", "Fields of requests that nobody knows, by name."}};

enum class Buckets { kSeconds, kTokens };
struct HistogramFamily : Family {
  Buckets buckets;
};

constexpr HistogramFamily kHistograms[] = {
    {{"time_to_first_token_seconds", "From the request's head to the first piece of the answer."},
     Buckets::kSeconds},
    {{"inter_token_latency_seconds", "Between two pieces of a streamed answer."},
     Buckets::kSeconds},
    {{"e2e_request_latency_seconds", "From the request's head to the end of the answer."},
     Buckets::kSeconds},
    {{"request_queue_time_seconds", "In the queue."}, Buckets::kSeconds},
    {{"request_media_time_seconds", "Decoding pictures and clips, and tokenizing."},
     Buckets::kSeconds},
    {{"request_vision_time_seconds", "In the vision encoder."}, Buckets::kSeconds},
    {{"request_prefill_time_seconds", "Computing the prompt."}, Buckets::kSeconds},
    {{"request_decode_time_seconds", "Decoding the answer."}, Buckets::kSeconds},
    {{"grammar_compile_seconds", "Compiling a schema, pattern or grammar, or finding it compiled."},
     Buckets::kSeconds},
    {{"grammar_mask_seconds", "Finding what a grammar allows, in all of an answer."},
     Buckets::kSeconds},
    {{"request_prompt_tokens", "Tokens of a prompt."}, Buckets::kTokens},
    {{"request_generation_tokens", "Tokens of an answer."}, Buckets::kTokens},
    {{"request_tiles", "Tiles, or patches, of a request."}, Buckets::kTokens}};

// 1, 2.5, 5 in each decade.
std::vector<double> bounds_of(Buckets buckets) {
  const bool is_time = buckets == Buckets::kSeconds;
  const double most = is_time ? 600 : 100'000;
  std::vector<double> bounds;
  for (double decade = is_time ? 0.001 : 1; decade <= most; decade *= 10) {
    for (const double step : {1.0, 2.5, 5.0}) {
      if (step * decade <= most && (is_time || step != 2.5)) bounds.push_back(step * decade);
    }
  }
  return bounds;
}

std::string escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    text += c == '\n' ? ' ' : c;
  }
  return text;
}

// {a="b",c="d"}, or nothing.
std::string label_text(const Metrics::Labels& labels) {
  if (labels.empty()) return "";
  std::vector<std::string> parts;
  for (const auto& [name, value] : labels)
    parts.push_back(concat(name, "=\"", escaped(value), "\""));
  return concat("{", join(parts, ","), "}");
}

std::string number(double value) {
  return short_text(value, 15);
}

void head(std::string& text, const std::string& name, const std::string& help, const char* type) {
  text += concat("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const HistogramFamily& find_histogram(const std::string& name) {
  return *std::find_if(std::begin(kHistograms), std::end(kHistograms),
                       [&](const HistogramFamily& one) { return name == one.name; });
}

}  // namespace

void Metrics::add(const std::string& name, const Labels& labels, double value) {
  constexpr std::size_t kMostIgnored = 50, kMostSamples = 1000;
  const std::size_t most = name == "ignored_fields_total" ? kMostIgnored : kMostSamples;
  const std::lock_guard lock(mutex_);
  auto& samples = counters_[name];
  std::string key = label_text(labels);
  if (samples.size() >= most && !samples.contains(key)) {
    Labels other = labels;
    for (auto& [label, text] : other) text = "other";
    key = label_text(other);
  }
  samples[key] += value;
}

void Metrics::observe(const std::string& name, double value) {
  const auto bounds = bounds_of(find_histogram(name).buckets);
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  const std::lock_guard lock(mutex_);
  Histogram& histogram = histograms_[name];
  histogram.counts.resize(bounds.size() + 1);
  ++histogram.counts[static_cast<std::size_t>(bucket)];
  histogram.sum += value;
  ++histogram.count;
}

std::string Metrics::text(const std::vector<Gauge>& gauges) const {
  std::string text, last;
  for (const Gauge& gauge : gauges) {
    if (gauge.name != last) {
      head(text, gauge.name, gauge.help, gauge.is_counter ? "counter" : "gauge");
    }
    last = gauge.name;
    text += concat(gauge.name, label_text(gauge.labels), " ", number(gauge.value), "\n");
  }
  const std::lock_guard lock(mutex_);
  for (const Family& family : kCounters) {
    const auto found = counters_.find(family.name);
    if (found == counters_.end()) continue;
    const std::string name = concat("vlm_", family.name);
    head(text, name, family.help, "counter");
    for (const auto& [labels, value] : found->second) {
      text += concat(name, labels, " ", number(value), "\n");
    }
  }
  for (const HistogramFamily& family : kHistograms) {
    const auto found = histograms_.find(family.name);
    if (found == histograms_.end()) continue;
    const std::string name = concat("vlm_", family.name);
    head(text, name, family.help, "histogram");
    const auto bounds = bounds_of(family.buckets);
    std::int64_t below = 0;
    for (std::size_t i = 0; i <= bounds.size(); ++i) {
      below += found->second.counts[i];
      const std::string bound = i < bounds.size() ? number(bounds[i]) : "+Inf";
      text += concat(name, "_bucket{le=\"", bound, "\"} ", below, "\n");
    }
    text += concat(name, "_sum ", number(found->second.sum), "\n", name, "_count ",
                   found->second.count, "\n");
  }
  return text;
}

void Metrics::count_finished() {
  const std::lock_guard lock(mutex_);
  finished_s_.push_back(now_s());
  if (finished_s_.size() > kMostRecent) finished_s_.erase(finished_s_.begin());
}

double Metrics::recent_rate() const {
  const std::lock_guard lock(mutex_);
  const double now = now_s();
  const auto recent = std::count_if(finished_s_.begin(), finished_s_.end(),
                                    [&](double when) { return now - when < kRecent; });
  if (recent == 0) return kGuess;
  const double since = now - finished_s_[finished_s_.size() - static_cast<std::size_t>(recent)];
  return static_cast<double>(recent) / std::clamp(since, 1.0, kRecent);
}

std::vector<Metrics::Gauge> process_gauges() {
  std::vector<Metrics::Gauge> gauges;
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  gauges.push_back({.name = "process_resident_memory_bytes",
                    .help = "Memory of the process.",
                    .value = static_cast<double>(resident * ::sysconf(_SC_PAGESIZE))});
  std::error_code code;
  std::int64_t descriptors = 0;
  for (auto entry = std::filesystem::directory_iterator("/proc/self/fd", code);
       !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
    ++descriptors;
  }
  gauges.push_back({.name = "process_open_fds",
                    .help = "Open descriptors.",
                    .value = static_cast<double>(descriptors)});
  struct rusage used = {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  gauges.push_back({.name = "process_cpu_seconds_total",
                    .help = "Processor time.",
                    .value = seconds(used.ru_utime) + seconds(used.ru_stime),
                    .is_counter = true});
  static const auto start = static_cast<double>(std::time(nullptr));
  gauges.push_back({.name = "process_start_time_seconds",
                    .help = "When the server began, in seconds since 1970.",
                    .value = start});
  return gauges;
}

}  // namespace vlm::infer
