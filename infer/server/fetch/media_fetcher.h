// Pictures and clips from other hosts, for requests that name them by http(s) addresses.
//
//   url ─► is its host named? ─► connect (the address itself is judged) ─► bytes
//
// A host is allowed by its exact name; https unless the entry says http://. What a name resolves to
// is judged when the socket is opened, so neither a redirect nor a name that resolves to another
// address the second time reaches this machine or its network, unless the entry is that address.
// Redirects are followed by hand, each with the same checks. Nothing is tried again.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "vlm/core/error.h"

namespace vlm::infer {

struct FetchOptions {
  std::vector<std::string> hosts;  // "pictures.example", "http://10.0.0.7:8000"
  std::int64_t max_bytes = 20'000'000;
  double time_s = 10;                     // for all of it
  std::vector<std::string> headers = {};  // "Name: value", for every one of the hosts
  std::vector<std::string> fixed = {};    // "name:port:address": what names resolve to; for tests
};

class FetchError : public Error {
 public:
  enum class Kind {
    kNotAllowed,  // by the rules above
    kBad,         // the host says so, or what it sends can't be taken
    kMayPass,     // the host, or the way there, has failed
  };
  FetchError(Kind kind, ErrorParts parts) : Error(std::move(parts)), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

class MediaFetcher {
 public:
  // Throws Error for an entry that is no host.
  explicit MediaFetcher(FetchOptions options);

  // Any thread. Throws FetchError, whose text holds nothing that the host sent.
  std::string fetch(const std::string& url) const;

 private:
  void check_host(const std::string& url) const;
  struct Hop;
  Hop fetch_once(const std::string& url, double time_s) const;

  FetchOptions options_;
  std::set<std::string> origins_;  // "https://pictures.example:443"
};

}  // namespace vlm::infer
