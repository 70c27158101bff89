// What all connections of a server share: the event loop, the handler, the limits, the counts.
// Exchanges hold it too, so that a late call of another thread finds it alive.
#pragma once

#include <utility>  // std::exchange, which Asio 1.18 uses without including it

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <chrono>

#include "infer/server/http/channel.h"
#include "infer/server/http/http_server.h"

namespace vlm::infer {

using Clock = std::chrono::steady_clock;

struct Network {
  Network(HttpOptions given, HttpHandler& wanted) : options(std::move(given)), handler(wanted) {
    if (options.has_tls())
      identity = std::make_unique<ServerCertificate>(options.tls_cert, options.tls_key);
  }

  const HttpOptions options;
  HttpHandler& handler;
  std::unique_ptr<ServerCertificate> identity;  // null: no TLS
  boost::asio::io_context loop{1};
  std::atomic<bool> is_draining{false}, is_stopped{false};
  std::atomic<std::int64_t> connections{0}, streams{0}, body_bytes{0}, refused{0};
  std::atomic<std::int64_t> exchanges{0};  // requests that are being answered
};

}  // namespace vlm::infer
