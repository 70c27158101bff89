// What /metrics says, in the form that Prometheus reads; the log line of a request.
#include "infer/server/metrics.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "infer/server/request_log.h"
#include "tests/support/catch.h"
#include "vlm/core/concat.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST_CASE("counters and histograms add up") {
  Metrics metrics;
  metrics.add("requests_total", {{"path", "/models"}, {"status", "200"}});
  metrics.add("requests_total", {{"path", "/models"}, {"status", "200"}}, 2);
  metrics.add("requests_total", {{"path", "other"}, {"status", "404"}});
  for (const double seconds : {0.0005, 0.001, 0.002, 3.0, 10'000.0}) {
    metrics.observe("e2e_request_latency_seconds", seconds);
  }
  metrics.observe("request_prompt_tokens", 7);
  const std::string text =
      metrics.text({{.name = "vlm_open_streams", .help = "Streams.", .labels = {}, .value = 4}});
  CHECK(has_line(text, "# TYPE vlm_open_streams gauge"));
  CHECK(has_line(text, "vlm_open_streams 4"));
  CHECK(has_line(text, "# TYPE vlm_requests_total counter"));
  CHECK(has_line(text, "vlm_requests_total{path=\"/models\",status=\"200\"} 3"));
  CHECK(has_line(text, "vlm_requests_total{path=\"other\",status=\"404\"} 1"));
  CHECK(has_line(text, "# TYPE vlm_e2e_request_latency_seconds histogram"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"0.001\"} 2"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"0.0025\"} 3"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"2.5\"} 3"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"5\"} 4"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"500\"} 4"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_bucket{le=\"+Inf\"} 5"));
  CHECK(has_line(text, "vlm_e2e_request_latency_seconds_count 5"));
  CHECK(has_line(text, "vlm_request_prompt_tokens_bucket{le=\"5\"} 0"));
  CHECK(has_line(text, "vlm_request_prompt_tokens_bucket{le=\"10\"} 1"));
  // Every sample follows its type, each family stands once.
  CHECK(text.find("# TYPE vlm_requests_total") == text.rfind("# TYPE vlm_requests_total"));
}

TEST_CASE("labels are escaped, and names of unknown fields don't grow for ever") {
  Metrics metrics;
  metrics.add("ignored_fields_total", {{"field", "a\"b\\c\nd"}});
  for (int i = 0; i < 100; ++i) metrics.add("ignored_fields_total", {{"field", concat("f", i)}});
  const std::string text = metrics.text({});
  CHECK(has_line(text, "vlm_ignored_fields_total{field=\"a\\\"b\\\\c d\"} 1"));
  CHECK(has_line(text, "vlm_ignored_fields_total{field=\"other\"} 51"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 2 + 51);
}

TEST_CASE("threads count together") {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) metrics.add("pictures_total");
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(has_line(metrics.text({}), "vlm_pictures_total 4000"));
}

TEST_CASE("the process tells its memory, descriptors and time") {
  for (const Metrics::Gauge& gauge : process_gauges()) {
    INFO(gauge.name);
    CHECK(gauge.value > 0);
  }
}

ExchangeEnd an_end() {
  ExchangeEnd end{.id = "req-1",
                  .method = "POST",
                  .path = "/v1/chat/completions",
                  .status = 200,
                  .seconds = 1.23456};
  end.facts = std::make_shared<RequestFacts>();
  end.facts->model = "m";
  end.facts->was_submitted = true;
  end.facts->prompt_tokens = 10;
  end.facts->completion_tokens = 2;
  end.facts->pictures = 1;
  end.facts->finish = "stop";
  return end;
}

TEST_CASE("a request's log line, as text and as JSON") {
  const ExchangeEnd end = an_end();
  const std::string text = log_line(end, LogFormat::kText);
  CHECK(text.substr(text.find('Z') + 1) ==
        " req-1 POST /v1/chat/completions 200 seconds=1.2346 model=m prompt_tokens=10 "
        "completion_tokens=2 pictures=1 media_s=0.0 queue_s=0.0 vision_s=0.0 prefill_s=0.0 "
        "decode_s=0.0 finish=stop");
  const OrderedJson json = OrderedJson::parse(log_line(end, LogFormat::kJson));
  CHECK(json["id"] == "req-1");
  CHECK(json["completion_tokens"] == 2);
  ExchangeEnd gone{.id = "x", .method = "GET", .path = "/a\xff\n", .status = 499, .is_gone = true};
  const std::string line = log_line(gone, LogFormat::kText);
  CHECK(line.find("cancelled=true") != std::string::npos);
}

TEST_CASE("a request is counted by its route and how it ended") {
  Metrics metrics;
  ExchangeEnd end = an_end();
  count_request(end, "/chat/completions", metrics);
  end.is_gone = true;
  count_request(end, "/chat/completions", metrics);
  const std::string text = metrics.text({});
  CHECK(has_line(text, "vlm_requests_total{path=\"/chat/completions\",status=\"200\"} 2"));
  CHECK(has_line(text, "vlm_request_finished_total{model=\"m\",reason=\"stop\"} 1"));
  CHECK(has_line(text, "vlm_request_finished_total{model=\"m\",reason=\"cancelled\"} 1"));
  CHECK(metrics.recent_rate() >= 2.0 / 60);
}

}  // namespace
}  // namespace vlm::infer
