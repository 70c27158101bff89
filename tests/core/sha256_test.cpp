// Digests against the published examples (FIPS 180-4's test vectors; git's empty blob).
#include "vlm/core/sha256.h"

#include "tests/support/catch.h"

namespace vlm {
namespace {

TEST_CASE("SHA-256 of the published examples") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("pieces give the digest of the whole, zero bytes included") {
  const std::string bytes = std::string(100'000, 'a') + std::string(1000, '\0') + "end";
  Sha256 digest;
  for (std::size_t at = 0; at < bytes.size(); at += 777) {
    digest.update(std::string_view(bytes).substr(at, 777));
  }
  CHECK(digest.hex_digest() == sha256_hex(bytes));
  CHECK(sha256_hex(bytes) != sha256_hex(bytes + '\0'));
}

TEST_CASE("SHA-1 gives git's name of a blob") {
  Sha1 digest;
  digest.update(std::string_view("blob 0\0", 7));
  CHECK(digest.hex_digest() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

}  // namespace
}  // namespace vlm
