#include "infer/server/request_log.h"

#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "infer/server/api/api_error.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

// "2026-11-30T17:00:00.123Z"
std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm time = {};
  ::gmtime_r(&seconds, &time);
  std::array<char, 32> text;
  const std::size_t size = std::strftime(text.data(), text.size(), "%FT%T", &time);
  return concat(std::string(text.data(), size), ".",
                std::to_string(1000 + ms.count() % 1000).substr(1), "Z");
}

OrderedJson to_json(const ExchangeEnd& end) {
  const auto seconds = [](double value) { return std::round(value * 1e4) / 1e4; };
  OrderedJson line = {{"time", timestamp()},  {"id", end.id},
                      {"method", end.method}, {"path", shown(end.path)},
                      {"status", end.status}, {"seconds", seconds(end.seconds)}};
  if (end.is_gone) line["cancelled"] = true;
  if (!end.facts || !end.facts->was_submitted) return line;
  const RequestFacts& facts = *end.facts;
  line["model"] = facts.model;
  line["prompt_tokens"] = facts.prompt_tokens;
  if (facts.cached_tokens > 0) line["cached_tokens"] = facts.cached_tokens;
  line["completion_tokens"] = facts.completion_tokens;
  if (facts.pictures > 0) line["pictures"] = facts.pictures;
  if (facts.clips > 0) line["clips"] = facts.clips;
  line["media_s"] = seconds(facts.media_s);
  line["queue_s"] = seconds(facts.queue_s);
  line["vision_s"] = seconds(facts.vision_s);
  line["prefill_s"] = seconds(facts.prefill_s);
  line["decode_s"] = seconds(facts.decode_s);
  if (!facts.finish.empty()) line["finish"] = facts.finish;
  return line;
}

}  // namespace

std::string log_line(const ExchangeEnd& end, LogFormat format) {
  const OrderedJson json = to_json(end);
  if (format == LogFormat::kJson) return dump_text(json);
  std::string line;
  for (const auto& [name, value] : json.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : dump_text(value);
    const bool is_bare =
        name == "time" || name == "id" || name == "method" || name == "path" || name == "status";
    line += concat(line.empty() ? "" : " ", is_bare ? "" : concat(name, "="), as_utf8(text));
  }
  return line;
}

void count_request(const ExchangeEnd& end, const std::string& path, Metrics& metrics) {
  metrics.add("requests_total", {{"path", path}, {"status", std::to_string(end.status)}});
  if (!end.facts) return;
  const RequestFacts& facts = *end.facts;
  const std::string reason = end.is_gone ? "cancelled" : facts.finish;
  if (reason.empty()) return;
  metrics.count_finished();
  metrics.add("request_finished_total", {{"model", facts.model}, {"reason", reason}});
  metrics.observe("e2e_request_latency_seconds", end.seconds);
  if (end.is_gone) return;
  metrics.observe("request_media_time_seconds", facts.media_s);
  metrics.observe("request_queue_time_seconds", facts.queue_s);
  metrics.observe("request_vision_time_seconds", facts.vision_s);
  metrics.observe("request_prefill_time_seconds", facts.prefill_s);
  metrics.observe("request_decode_time_seconds", facts.decode_s);
  if (facts.first_piece_s > 0) metrics.observe("time_to_first_token_seconds", facts.first_piece_s);
}

}  // namespace vlm::infer
