// The bytes of one connection: a socket, as it is or with TLS around it.
//
//   cert, key ─► ServerCertificate (of the server) ─► Channel: shake_hands, read, write, close
//
// TLS 1.2 and up. At the end no close_notify is sent: HTTP says itself where an answer ends. Runs
// on the network thread; a read and a write may be pending at the same time.
#pragma once

#include <utility>  // std::exchange, which Asio 1.18 uses without including it

#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <functional>
#include <memory>
#include <string>

namespace vlm::infer {

using Socket = boost::asio::generic::stream_protocol::socket;

// Certificate chain and key of a server.
class ServerCertificate {
 public:
  // From PEM files. Throws Error for what can't be read or doesn't belong together.
  ServerCertificate(const std::string& certificates, const std::string& key);
  ~ServerCertificate();

 private:
  friend class Channel;
  struct Context;
  std::unique_ptr<Context> context_;
};

class Channel {
 public:
  using Done = std::function<void(const boost::system::error_code&, std::size_t count)>;

  // `identity` null: no TLS. It must outlive the channel.
  Channel(Socket socket, ServerCertificate* identity);
  ~Channel();

  bool has_tls() const { return tls_ != nullptr; }
  void shake_hands(Done done);
  void read(boost::asio::mutable_buffer buffer, Done done);
  void write(boost::asio::const_buffer buffer, Done done);
  void end_writing();
  void close();

 private:
  struct Tls;
  Socket socket_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace vlm::infer
