// The two ends a test server needs of a connection: a head to read, bytes to write, with TLS or
// without, and a self-signed certificate made on the spot.
#pragma once

#include <string>

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;

// A key and a certificate for localhost and 127.0.0.1 that nobody has reason to trust.
class TlsIdentity {
 public:
  TlsIdentity();
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  const std::string& certificate() const { return certificate_; }  // PEM
  const std::string& key() const { return key_; }                  // PEM
  SSL_CTX* context() const { return context_; }

 private:
  SSL_CTX* context_;
  std::string certificate_, key_;
};

class TlsSocket {
 public:
  // Takes over the descriptor; `identity` null: without TLS.
  TlsSocket(int descriptor, const TlsIdentity* identity);
  ~TlsSocket();
  TlsSocket(const TlsSocket&) = delete;
  TlsSocket& operator=(const TlsSocket&) = delete;

  // Up to and with the empty line; "" when the other side has gone.
  std::string read_head();
  // What can't be written is dropped: the other side has gone.
  void write(const std::string& bytes);

 private:
  int descriptor_;
  SSL* ssl_ = nullptr;
  bool is_open_ = true;
};

// Whether a server of this machine shakes hands with a client that knows no newer TLS than that
// (0x0302: 1.1, 0x0303: 1.2), whatever its certificate.
bool shakes_hands(int port, int newest_version);
