#include "tests/support/hub/tls_socket.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <stdexcept>

namespace {

X509* make_certificate(EVP_PKEY* key) {
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  const auto* text = reinterpret_cast<const unsigned char*>("vlm test hub");
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_EXTENSION* names =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  X509_add_ext(certificate, names, -1);
  X509_EXTENSION_free(names);
  if (X509_sign(certificate, key, EVP_sha256()) == 0) throw std::runtime_error("no certificate");
  return certificate;
}

// What `write` writes.
template <typename Write>
std::string written_by(Write write) {
  BIO* memory = BIO_new(BIO_s_mem());
  write(memory);
  char* data = nullptr;
  const long size = BIO_get_mem_data(memory, &data);
  const std::string text(data, static_cast<std::size_t>(size));
  BIO_free(memory);
  return text;
}

std::string to_pem(X509* certificate) {
  return written_by([&](BIO* to) { PEM_write_bio_X509(to, certificate); });
}

std::string to_pem(EVP_PKEY* key) {
  return written_by(
      [&](BIO* to) { PEM_write_bio_PrivateKey(to, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

}  // namespace

TlsIdentity::TlsIdentity() : context_(SSL_CTX_new(TLS_server_method())) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = make_certificate(key);
  certificate_ = to_pem(certificate);
  SSL_CTX_use_certificate(context_, certificate);
  SSL_CTX_use_PrivateKey(context_, key);
  key_ = to_pem(key);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

TlsIdentity::~TlsIdentity() {
  SSL_CTX_free(context_);
}

TlsSocket::TlsSocket(int descriptor, const TlsIdentity* identity) : descriptor_(descriptor) {
  if (!identity) return;
  ssl_ = SSL_new(identity->context());
  SSL_set_fd(ssl_, descriptor_);
  is_open_ = SSL_accept(ssl_) == 1;
}

TlsSocket::~TlsSocket() {
  if (ssl_ && is_open_) SSL_shutdown(ssl_);
  SSL_free(ssl_);
  ::close(descriptor_);
}

std::string TlsSocket::read_head() {
  std::string head;
  while (is_open_ && head.find("\r\n\r\n") == std::string::npos) {
    char block[4096];
    const auto count = ssl_ ? SSL_read(ssl_, block, sizeof block)
                            : static_cast<int>(::read(descriptor_, block, sizeof block));
    if (count <= 0) return "";
    head.append(block, static_cast<std::size_t>(count));
  }
  return head;
}

void TlsSocket::write(const std::string& bytes) {
  for (std::size_t done = 0; is_open_ && done < bytes.size();) {
    const auto rest = static_cast<int>(bytes.size() - done);
    const auto count = ssl_ ? SSL_write(ssl_, bytes.data() + done, rest)
                            : static_cast<int>(::write(descriptor_, bytes.data() + done, rest));
    is_open_ = count > 0;
    if (is_open_) done += static_cast<std::size_t>(count);
  }
}

bool shakes_hands(int port, int newest_version) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_security_level(context, 0);  // else it is this side that refuses old versions
  SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context, newest_version);
  BIO* connection = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(connection, ("127.0.0.1:" + std::to_string(port)).c_str());
  const bool is_done = BIO_do_connect(connection) == 1 && BIO_do_handshake(connection) == 1;
  BIO_free_all(connection);
  SSL_CTX_free(context);
  return is_done;
}
