// Counts and times of the server, as Prometheus reads them (text format 0.0.4).
//
//   add, observe ─► Metrics ─► text(gauges of the moment) ─► GET /metrics
//
// Names and labels are those of a fixed table, and no label holds what a client wrote, but for
// names of fields that nobody knows: at most 50 of them. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace vlm::infer {

class Metrics {
 public:
  // Pairs of name and value: {{"model", "a"}, {"reason", "stop"}}.
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // The metric must be in the table (metrics.cpp), without its prefix "vlm_".
  void add(const std::string& name, const Labels& labels = {}, double value = 1);
  void observe(const std::string& name, double value);

  struct Gauge {
    std::string name, help;
    Labels labels;
    double value = 0;
    bool is_counter = false;  // kept elsewhere, and only ever growing
  };
  // Everything, with these beside it.
  std::string text(const std::vector<Gauge>& gauges) const;

  // Finished requests a second over the last minute; a guess when there was none.
  double recent_rate() const;
  void count_finished();

 private:
  struct Histogram {
    std::vector<std::int64_t> counts;  // of each bucket, without those below
    double sum = 0;
    std::int64_t count = 0;
  };

  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, double>> counters_;  // name → labels → value
  std::map<std::string, Histogram> histograms_;
  std::vector<double> finished_s_;  // when the last ones finished
  std::size_t ignored_names_ = 0;
};

// Memory, descriptors, processor time and start of this process.
std::vector<Metrics::Gauge> process_gauges();

}  // namespace vlm::infer
