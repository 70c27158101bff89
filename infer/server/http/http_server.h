// An HTTP/1.1 server on one thread: a listener and its connections, with limits on all that a
// client can make large or slow.
//
//   HttpOptions, HttpHandler ─► HttpServer ─► listening; start() ─► requests go to the handler
//
// Requests are read as RFC 9112 says, less what old parsers disagree about: Transfer-Encoding, a
// repeated Host or Content-Length, and other versions than 1.0 and 1.1 are refused. With a
// certificate it speaks TLS and nothing else. The library (Boost.Asio and Beast's parser) is seen
// by this folder alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "infer/server/http/http_handler.h"

namespace vlm::infer {

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, a name, or unix:/path of a socket
  int port = 8080;                 // 0: any that is free
  std::string tls_cert, tls_key;   // PEM files; both or none
  bool has_tls() const { return !tls_cert.empty(); }

  std::int64_t max_connections = 1000;
  std::int64_t max_connections_per_peer = 64;  // of one address; not of this machine's own
  std::int64_t max_header_bytes = 32 << 10;
  std::int64_t max_target_bytes = 8 << 10;
  std::int64_t max_body_bytes = 32 << 20;
  std::int64_t max_bodies_bytes = 512 << 20;  // of all requests that are being read or answered
  std::int64_t max_unsent_bytes = 256 << 10;  // of a stream whose client doesn't read

  std::chrono::milliseconds header_time{10'000};
  std::chrono::milliseconds idle_time{75'000};   // between requests of a connection
  std::chrono::milliseconds body_time{60'000};   // or longer, by the rate
  std::int64_t body_bytes_per_s = 64 << 10;      // the least rate of larger bodies
  std::chrono::milliseconds write_time{60'000};  // without progress
  std::chrono::milliseconds beat_time{15'000};   // of silence in a stream
  std::chrono::milliseconds linger_time{2'000};  // for the client to read a last answer
};

struct HttpStats {
  std::int64_t connections = 0, streams = 0, body_bytes = 0;  // at the moment
  std::int64_t refused_connections = 0;                       // since the start
};

class HttpServer {
 public:
  // Binds and listens. Throws Error when that can't be. The handler must outlive the server.
  HttpServer(HttpOptions options, HttpHandler& handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  // Takes no new connections; those that are open go on.
  void stop_accepting();
  // Waits until no request is being answered; false when the time is over before.
  bool wait_until_idle(std::chrono::milliseconds time);
  // Closes everything and ends the thread. Exchanges that are still held stay valid and do nothing.
  void stop();

  int port() const;             // 0 on a Unix socket
  std::string address() const;  // "http(s)://127.0.0.1:8080", "unix:/run/vlm.sock"
  bool is_loopback() const;     // only this machine can reach it
  HttpStats stats() const;

 private:
  class Listener;
  std::shared_ptr<Listener> listener_;
};

}  // namespace vlm::infer
