// A small Hugging Face hub on 127.0.0.1 for tests, with one model, and with ways to misbehave.
//
// It answers the listing, HEAD and GET of files as the hub does: small files through a relative
// redirect, large ones (LFS) through a redirect to another host, which is the same server called
// "localhost". That host refuses a request with a token, honours ranges and knows contents by hash.
// `hook` sees every request first and may answer in its place. As an http proxy it takes whole
// addresses. Reference: what huggingface_hub 2.4 asks and expects.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct HubRequest {
  std::string method, path;  // "GET", "/api/models/…?blobs=true"
  std::string host, range, authorization;
  bool has_whole_address = false;  // as a proxy gets it

  bool is(const std::string& wanted_method, const std::string& part_of_path) const {
    return method == wanted_method && path.find(part_of_path) != std::string::npos;
  }
};

struct HubReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  std::optional<std::size_t> cut_after = {};  // ends the connection after so many bytes of the body
  bool is_silent_then = false;                // says nothing more instead, until the server ends
};

struct HubServerFile {
  std::string content;
  bool is_lfs = false;
  // What the hub says of it; empty: the truth.
  std::string told_hash = {}, told_size = {};
};

// What the server offers, and what it has seen.
class HubServer {
 public:
  explicit HubServer(bool with_tls = false);
  ~HubServer();
  HubServer(const HubServer&) = delete;
  HubServer& operator=(const HubServer&) = delete;

  std::string model = "org/tiny";
  bool is_dataset = false;  // the repository is one of a data set
  std::string commit = std::string(40, 'c');
  std::vector<std::string> revisions = {"main", "v1", "refs/pr/1"};  // all at `commit`
  std::string token;                                                 // wanted from everybody
  std::map<std::string, HubServerFile> files;
  std::vector<std::string> more_names;  // listed, without a content
  bool has_ranges = true;
  // Sees every request first, one at a time; nothing: the answer of a good hub.
  std::function<std::optional<HubReply>(const HubRequest&)> hook;

  std::string endpoint() const;     // http://127.0.0.1:PORT
  std::string other_host() const;   // http://localhost:PORT
  std::string certificate() const;  // PEM, self-signed, of a server with TLS

  // The answer of a good hub to a request.
  HubReply answer(const HubRequest& request) const;
  std::vector<HubRequest> requests() const;
  void forget_requests();
  // Requests with this method and part of a path.
  int count(const std::string& method, const std::string& part_of_path) const;

 private:
  struct Listener;
  HubReply answer_file(const HubRequest& request, const std::string& path) const;
  HubReply answer_content(const HubRequest& request, const std::string& hash) const;
  std::optional<HubReply> take(const HubRequest& request);

  std::unique_ptr<Listener> listener_;
};

// The hash by which the hub knows a file: SHA-256, or git's blob SHA-1.
std::string hub_hash(const HubServerFile& file);

// A model's files, the weights `weight_bytes` long, as a repository has them: with a pickle, code
// and an export that nobody should fetch.
std::map<std::string, HubServerFile> tiny_model_files(std::size_t weight_bytes = 3000);
