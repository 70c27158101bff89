// SHA-256 of bytes that come piece by piece: checks of downloads, keys of caches.
//
//   bytes ─► update, as often as needed ─► hex_digest: 64 lower-case hex digits
//
// SHA-1 is here only because git names its blobs by it, and so does the Hugging Face hub; it
// protects against accidents, not against people. OpenSSL does the arithmetic (FIPS 180-4).
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace vlm {

// The part that Sha256 and Sha1 share.
class Digest {
 public:
  void update(std::string_view bytes);

  // Ends the digest; no function may be called afterwards.
  std::string hex_digest();

 protected:
  explicit Digest(const char* algorithm);

 private:
  struct Release {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Release> context_;
};

class Sha256 : public Digest {
 public:
  Sha256() : Digest("SHA256") {}
};

class Sha1 : public Digest {
 public:
  Sha1() : Digest("SHA1") {}
};

std::string sha256_hex(std::string_view bytes);

}  // namespace vlm
