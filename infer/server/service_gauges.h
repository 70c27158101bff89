// What /metrics tells of the moment: queues, caches, connections, models, the process.
#pragma once

#include <vector>

#include "infer/server/answer_job.h"
#include "infer/server/http/http_server.h"

namespace vlm::infer {

// `server` may be null, and so may the models while they are loaded.
std::vector<Metrics::Gauge> service_gauges(const ServiceParts& parts, const HttpServer* server);

}  // namespace vlm::infer
