#include "vlm/core/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "vlm/core/error.h"

namespace vlm {
namespace {

// OpenSSL refuses an algorithm only where a policy of the machine forbids it (SHA-1, in places).
void check(int is_done, const char* what) {
  if (is_done != 1) throw Error({.what = what, .hint = "OpenSSL refused it"});
}

}  // namespace

void Digest::Release::operator()(void* context) const {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context));
}

Digest::Digest(const char* algorithm) : context_(EVP_MD_CTX_new()) {
  const EVP_MD* method = EVP_get_digestbyname(algorithm);
  check(method && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_.get()), method, nullptr),
        "can't begin a digest");
}

void Digest::update(std::string_view bytes) {
  check(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), bytes.size()),
        "can't go on with a digest");
}

std::string Digest::hex_digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  check(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), bytes.data(), &size),
        "can't end a digest");
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.hex_digest();
}

}  // namespace vlm
