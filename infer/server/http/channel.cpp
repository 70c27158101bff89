#include "infer/server/http/channel.h"

#include <boost/asio/ssl.hpp>
#include <filesystem>

#include "vlm/core/error.h"

namespace vlm::infer {

namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;
using SslCode = boost::system::error_code;

struct ServerCertificate::Context {
  ssl::context of{ssl::context::tls_server};
};

struct Channel::Tls {
  Tls(Socket& socket, ssl::context& context) : stream(socket, context) {}
  ssl::stream<Socket&> stream;
};

namespace {

void check_pem(const SslCode& code, const char* option, const std::string& path) {
  if (!code) return;
  throw Error({.what = std::filesystem::exists(path) ? "can't be used" : "no such file",
               .where = option,
               .got = path,
               .wanted = "PEM, with a key that belongs to the certificate",
               .hint = code.message()});
}

}  // namespace

ServerCertificate::ServerCertificate(const std::string& certificates, const std::string& key)
    : context_(std::make_unique<Context>()) {
  ssl::context& context = context_->of;
  context.set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                      ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  SslCode code;
  context.use_certificate_chain_file(certificates, code);
  check_pem(code, "--tls-cert", certificates);
  context.use_private_key_file(key, ssl::context::pem, code);
  check_pem(code, "--tls-key", key);
}

ServerCertificate::~ServerCertificate() = default;

Channel::Channel(Socket socket, ServerCertificate* identity)
    : socket_(std::move(socket)),
      tls_(identity ? std::make_unique<Tls>(socket_, identity->context_->of) : nullptr) {}
Channel::~Channel() = default;

void Channel::shake_hands(Done done) {
  tls_->stream.async_handshake(ssl::stream_base::server,
                               [done = std::move(done)](const SslCode& code) { done(code, 0); });
}

void Channel::read(asio::mutable_buffer buffer, Done done) {
  tls_ ? tls_->stream.async_read_some(buffer, std::move(done))
       : socket_.async_read_some(buffer, std::move(done));
}

void Channel::write(asio::const_buffer buffer, Done done) {
  tls_ ? tls_->stream.async_write_some(buffer, std::move(done))
       : socket_.async_write_some(buffer, std::move(done));
}

void Channel::end_writing() {
  SslCode ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void Channel::close() {
  SslCode ignored;
  socket_.close(ignored);
}

}  // namespace vlm::infer
