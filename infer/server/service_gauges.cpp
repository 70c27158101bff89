#include "infer/server/service_gauges.h"

#include "vlm/core/concat.h"

namespace vlm::infer {

std::vector<Metrics::Gauge> service_gauges(const ServiceParts& parts, const HttpServer* server) {
  std::vector<Metrics::Gauge> gauges = process_gauges();
  gauges.push_back({.name = "vlm_build_info",
                    .help = "The program.",
                    .labels = {{"version", VLM_VERSION}},
                    .value = 1});
  const auto add = [&](const char* name, const char* help, double value, bool is_counter = false) {
    gauges.push_back(
        {.name = concat("vlm_", name), .help = help, .value = value, .is_counter = is_counter});
  };
  const ShelfStats models = parts.models ? parts.models->stats() : ShelfStats{};
  const EngineStats& all = models.engines;
  for (const auto& [id, digest, dtype, device] : models.loaded) {
    gauges.push_back(
        {.name = "vlm_model_info",
         .help = "A model that is in memory.",
         .labels = {{"model", id}, {"digest", digest}, {"dtype", dtype}, {"device", device}},
         .value = 1});
  }
  const HttpStats http = server ? server->stats() : HttpStats{};
  add("num_requests_running", "Requests that are being answered.", double(all.running));
  add("num_requests_waiting", "Requests in the queue, and those whose media are being decoded.",
      double(all.waiting + parts.preparing));
  add("open_connections", "Connections.", double(http.connections));
  add("open_streams", "Answers that are being streamed.", double(http.streams));
  add("request_body_bytes", "Bodies that are held.", double(http.body_bytes));
  add("connections_refused_total", "Connections over the limit.", double(http.refused_connections),
      true);
  add("kv_cache_bytes", "Keys and values of what runs.", double(all.cache_bytes));
  add("feature_cache_bytes", "Features of pictures that are kept.", double(all.kept_media_bytes));
  add("feature_cache_hits_total", "Pictures whose features were kept.", double(all.media_hits),
      true);
  add("feature_cache_misses_total", "Pictures that were encoded.", double(all.media_misses), true);
  add("grammar_cache_bytes", "Compiled schemas, patterns and grammars.",
      double(models.grammar_bytes));
  add("prefix_cache_hits_total", "Prompts whose beginning was kept.", double(all.prefix_hits),
      true);
  add("prefix_cache_queries_total", "Prompts.", double(all.prefix_queries), true);
  add("tiles_encoded_total", "Tiles, or patches, that were encoded.", double(all.encoded_units),
      true);
  add("lora_loaded", "Adapters that are in memory.", double(models.adapters));
  add("lora_waiting", "Adapters that requests wait for.", double(models.waiting));
  add("lora_loads_total", "Adapters that were loaded.", double(models.loads), true);
  return gauges;
}

}  // namespace vlm::infer
