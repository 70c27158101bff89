// Requests to a Hugging Face hub: lists of files, their sizes and hashes, their bytes.
//
//   list     org/name at a revision  ─► commit, names of the files
//   describe a file of that commit   ─► size and hash
//   fetch    a file from an offset   ─► bytes into a HubSink
//
// Broken connections and status 408, 429 and 5xx are tried again after a growing pause, or the one
// that the server asks for. Redirects are followed here and not by libcurl: the token is sent only
// to the endpoint's own scheme, host and port, and not again after a redirect to another host.
// Nothing is written here (vlm/io/hub/hub_pull does). The addresses are those of huggingface_hub
// 2.4.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/error.h"
#include "vlm/io/hub/http.h"
#include "vlm/io/hub/hub_cache.h"
#include "vlm/io/hub/hub_options.h"

namespace vlm {

struct HubListing {
  std::string commit;              // 40 hex digits
  std::vector<std::string> files;  // names that check_file_name lets pass
};

struct HubFile {
  std::string name;
  std::string hash;  // SHA-256 of the bytes (64 hex digits), or git's blob SHA-1 (40)
  std::int64_t bytes = 0;
};

// Receives the bytes of one file. An exception that it throws ends the transfer.
class HubSink {
 public:
  virtual ~HubSink() = default;
  virtual std::int64_t size() const = 0;  // bytes that are there
  virtual void restart() = 0;             // drops these bytes
  virtual void append(std::string_view bytes) = 0;
};

// The hub gave no whole answer: no connection, or a server at fault. It may give one later.
class NoAnswerError : public Error {
 public:
  using Error::Error;
};

class HubClient {
 public:
  explicit HubClient(HubOptions options);

  // Throws Error: no such model or revision, no access, or a reply that no hub would send; of these
  // NoAnswerError when the tries were used up without a whole answer.
  HubListing list(const HubName& name);
  HubFile describe(const HubName& name, const std::string& commit, const std::string& file);

  // Fetches until `sink` has all bytes of the file; bytes that it has at the start are not fetched
  // again. The hash is not checked here.
  void fetch(const HubName& name, const std::string& commit, const HubFile& file, HubSink& sink);

 private:
  struct HubResponse {
    HttpReply reply;
    std::map<std::string, std::string> first;  // X- headers, of the first answer that had them
  };
  HubResponse ask(HttpRequest request, bool stop_at_description = false);
  HubResponse ask_with_retries(const HttpRequest& request, const std::string& where,
                               bool stop_at_description = false);
  HttpReply ask_bytes(const std::string& url, const HubFile& file, HubSink& sink);
  void wait(const HttpReply& reply, int failed_tries, const std::string& where) const;
  [[noreturn]] void refuse(const HttpReply& reply, const HubName& name, const std::string& where);
  std::string revisions_of(const HubName& name);
  std::string file_url(const HubName& name, const std::string& commit,
                       const std::string& file) const;

  HubOptions options_;
  std::string origin_;  // of the endpoint
  HttpClient http_;
};

}  // namespace vlm
