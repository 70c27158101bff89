#include "infer/server/http/http_server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstring>
#include <filesystem>
#include <list>
#include <thread>

#include "infer/server/http/http_connection.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::infer {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Code = boost::system::error_code;
using Tcp = asio::ip::tcp;
using Unix = asio::local::stream_protocol;

namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::chrono::milliseconds kTick{250};
constexpr std::chrono::milliseconds kBackOff{100};  // when no descriptor is left

[[noreturn]] void refuse_address(const HttpOptions& options, const std::string& reason,
                                 const std::string& hint) {
  const bool is_unix = options.host.starts_with(kUnix);
  throw Error({.what = "can't listen",
               .where = is_unix ? options.host : concat(options.host, ":", options.port),
               .got = reason,
               .hint = hint});
}

Tcp::endpoint find_endpoint(const HttpOptions& options, asio::io_context& loop) {
  const auto port = static_cast<unsigned short>(options.port);
  Code code;
  const auto address = asio::ip::make_address(options.host, code);
  if (!code) return {address, port};
  Tcp::resolver resolver(loop);
  const auto found = resolver.resolve(options.host, std::to_string(port), code);
  if (code || found.empty()) {
    refuse_address(options, code.message(), "--host takes an address, a name or unix:/path");
  }
  return found.begin()->endpoint();
}

// A socket file that nobody listens on any more is taken away.
void remove_stale_socket(const std::string& path, asio::io_context& loop) {
  if (!fs::is_socket(path)) return;
  Unix::socket probe(loop);
  Code code;
  probe.connect(Unix::endpoint(path), code);
  if (code) ::unlink(path.c_str());
}

}  // namespace

// Runs on the network thread, but for its start.
class HttpServer::Listener : public std::enable_shared_from_this<HttpServer::Listener> {
 public:
  Listener(HttpOptions options, HttpHandler& handler)
      : network_(std::make_shared<Network>(std::move(options), handler)),
        acceptor_(network_->loop),
        clock_(network_->loop),
        back_off_(network_->loop) {
    network_->options.host.starts_with(kUnix) ? listen_unix() : listen_tcp();
  }

  void start() {
    asio::post(network_->loop, [self = shared_from_this()] {
      self->accept();
      self->tick();
    });
    thread_ = std::thread([this] { run(); });
  }

  void stop_accepting() {
    network_->is_draining = true;
    asio::post(network_->loop, [self = shared_from_this()] {
      Code ignored;
      self->acceptor_.close(ignored);
      for (const auto& connection : self->connections_) connection->close_if_idle();
    });
  }

  void stop() {
    if (network_->is_stopped.exchange(true)) return;
    asio::post(network_->loop, [self = shared_from_this()] {
      Code ignored;
      self->acceptor_.close(ignored);
      self->clock_.cancel();
      self->back_off_.cancel();
      for (const auto& connection : self->connections_) connection->close();
      self->connections_.clear();
    });
    if (thread_.joinable()) thread_.join();
    network_->loop.restart();
    network_->loop.poll();  // what was posted too late
    if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
  }

  Network& network() { return *network_; }
  int port() const { return endpoint_ ? endpoint_->port() : 0; }
  bool is_loopback() const { return !endpoint_ || endpoint_->address().is_loopback(); }
  std::string address() const {
    if (!endpoint_) return network_->options.host;
    const std::string host = endpoint_->address().to_string();
    const bool is_v6 = endpoint_->address().is_v6();
    const char* scheme = network_->options.has_tls() ? "https://" : "http://";
    return concat(scheme, is_v6 ? "[" : "", host, is_v6 ? "]:" : ":", endpoint_->port());
  }

 private:
  // Whatever a handler throws ends no more than what it was called for.
  void run() {
    for (;;) {
      try {
        network_->loop.run();
        return;
      } catch (const std::exception& error) {
        log_warning(concat("the server's network thread caught: ", error.what()));
      }
    }
  }

  void listen_tcp() {
    const HttpOptions& options = network_->options;
    const Tcp::endpoint endpoint = find_endpoint(options, network_->loop);
    try {
      Tcp::acceptor acceptor(network_->loop, endpoint, true);
      endpoint_ = acceptor.local_endpoint();
      acceptor_.assign(endpoint_->protocol(), acceptor.release());
    } catch (const boost::system::system_error& error) {
      refuse_address(options, error.code().message(), "--port takes another one");
    }
  }

  void listen_unix() {
    const HttpOptions& options = network_->options;
    const std::string path = options.host.substr(kUnix.size());
    remove_stale_socket(path, network_->loop);
    try {
      Unix::acceptor acceptor(network_->loop, Unix::endpoint(path), false);
      acceptor_.assign(Unix(), acceptor.release());
      socket_path_ = path;
      fs::permissions(path, fs::perms(0660));
    } catch (const std::exception& error) {
      refuse_address(options, error.what(), "the folder must exist and be writable");
    }
  }

  void accept() {
    acceptor_.async_accept([self = shared_from_this()](const Code& code, Socket socket) {
      if (self->network_->is_draining || self->network_->is_stopped) return;
      if (code) return self->wait_and_accept();
      self->take(std::move(socket));
      self->accept();
    });
  }

  // Out of descriptors, mostly: connections that end meanwhile make room.
  void wait_and_accept() {
    back_off_.expires_after(kBackOff);
    back_off_.async_wait([self = shared_from_this()](const Code& code) {
      if (!code) self->accept();
    });
  }

  void take(Socket socket) {
    Code code;
    std::string peer;
    bool is_local = true;
    if (endpoint_) {
      socket.set_option(Tcp::no_delay(true), code);
      const auto remote = socket.remote_endpoint(code);
      if (code) return;  // it has left
      Tcp::endpoint address;
      std::memcpy(address.data(), remote.data(), std::min(remote.size(), address.capacity()));
      peer = address.address().to_string();
      is_local = address.address().is_loopback();
    }
    const HttpOptions& options = network_->options;
    const auto same = std::count_if(connections_.begin(), connections_.end(), [&](const auto& one) {
      return !one->is_closed() && one->peer() == peer;
    });
    const bool is_too_much = network_->connections >= options.max_connections ||
                             (!is_local && same >= options.max_connections_per_peer);
    if (is_too_much) {
      ++network_->refused;
      return;  // which closes it
    }
    connections_.push_back(
        std::make_shared<HttpConnection>(network_, std::move(socket), std::move(peer)));
    connections_.back()->start();
  }

  void tick() {
    const auto now = Clock::now();
    connections_.remove_if([](const auto& connection) { return connection->is_closed(); });
    for (const auto& connection : connections_) connection->tick(now);
    clock_.expires_after(tick_time());
    clock_.async_wait([self = shared_from_this()](const Code& code) {
      if (!code && !self->network_->is_stopped) self->tick();
    });
  }

  // A quarter of the shortest limit, where that is short.
  std::chrono::milliseconds tick_time() const {
    const HttpOptions& options = network_->options;
    const auto shortest = std::min({options.header_time, options.idle_time, options.body_time,
                                    options.write_time, options.beat_time, options.linger_time});
    return std::clamp(shortest / 4, std::chrono::milliseconds(5), kTick);
  }

  std::shared_ptr<Network> network_;
  asio::basic_socket_acceptor<asio::generic::stream_protocol> acceptor_;
  asio::steady_timer clock_, back_off_;
  std::optional<Tcp::endpoint> endpoint_;  // none: a Unix socket
  std::string socket_path_;
  std::list<std::shared_ptr<HttpConnection>> connections_;
  std::thread thread_;
};

HttpServer::HttpServer(HttpOptions options, HttpHandler& handler)
    : listener_(std::make_shared<Listener>(std::move(options), handler)) {}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::start() {
  listener_->start();
}

void HttpServer::stop_accepting() {
  listener_->stop_accepting();
}

bool HttpServer::wait_until_idle(std::chrono::milliseconds time) {
  const auto until = Clock::now() + time;
  while (listener_->network().exchanges > 0) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

void HttpServer::stop() {
  listener_->stop();
}

int HttpServer::port() const {
  return listener_->port();
}

std::string HttpServer::address() const {
  return listener_->address();
}

bool HttpServer::is_loopback() const {
  return listener_->is_loopback();
}

HttpStats HttpServer::stats() const {
  const Network& network = listener_->network();
  return {.connections = network.connections,
          .streams = network.streams,
          .body_bytes = network.body_bytes,
          .refused_connections = network.refused};
}

}  // namespace vlm::infer
