#include "tests/support/hub/hub_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "tests/support/hub/tls_socket.h"
#include "vlm/core/concat.h"
#include "vlm/core/sha256.h"

namespace {

std::string value_of(const std::string& head, const std::string& name) {
  std::string low = head;
  std::transform(low.begin(), low.end(), low.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const auto at = low.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const auto start = at + name.size() + 4;
  return head.substr(start, head.find("\r\n", start) - start);
}

HubRequest parse_request(const std::string& head) {
  HubRequest request{.host = value_of(head, "host"),
                     .range = value_of(head, "range"),
                     .authorization = value_of(head, "authorization")};
  const auto first = head.find(' ');
  const auto second = head.find(' ', first + 1);
  request.method = head.substr(0, first);
  request.path = head.substr(first + 1, second - first - 1);
  if (request.path.starts_with("http://")) {
    request.has_whole_address = true;
    request.path = request.path.substr(request.path.find('/', 7));
  }
  return request;
}

std::string unquoted(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      plain += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// A JSON string; control characters as \u00XX.
std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char kDigits[] = "0123456789abcdef";
      json += std::string("\\u00") + kDigits[c >> 4] + kDigits[c & 15];
    } else {
      json += c;
    }
  }
  return json + "\"";
}

HubReply refusal(int status, const std::string& code, const std::string& message) {
  return {.status = status,
          .headers = {{"X-Error-Code", code}, {"X-Error-Message", message}},
          .body = "{\"error\":" + quoted(message) + "}"};
}

void write_reply(TlsSocket& socket, const HubRequest& request, const HubReply& reply) {
  std::string head = vlm::concat("HTTP/1.1 ", reply.status, " X\r\nConnection: close\r\n");
  bool has_length = false;
  for (const auto& [name, value] : reply.headers) {
    head += name + ": " + value + "\r\n";
    has_length = has_length || name == "Content-Length";
  }
  if (!has_length) head += vlm::concat("Content-Length: ", reply.body.size(), "\r\n");
  socket.write(head + "\r\n");
  if (request.method != "HEAD")
    socket.write(reply.body.substr(0, reply.cut_after.value_or(std::string::npos)));
}

}  // namespace

// The socket and its threads, one a connection.
struct HubServer::Listener {
  int socket = -1;
  int port = 0;
  std::unique_ptr<TlsIdentity> tls;
  std::atomic<bool> is_ending{false};
  mutable std::mutex mutex;  // of the requests and the hook
  std::vector<HubRequest> requests;
  std::thread acceptor;
  std::vector<std::thread> connections;

  void open() {
    socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* place = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket, place, size) != 0 || ::listen(socket, 64) != 0 ||
        ::getsockname(socket, place, &size) != 0) {
      throw std::runtime_error("no port for the test hub");
    }
    port = ntohs(address.sin_port);
  }
};

HubServer::HubServer(bool with_tls) : listener_(std::make_unique<Listener>()) {
  std::signal(SIGPIPE, SIG_IGN);  // clients that leave are part of the tests
  Listener& listener = *listener_;
  if (with_tls) listener.tls = std::make_unique<TlsIdentity>();
  listener.open();
  listener.acceptor = std::thread([this, &listener] {
    while (true) {
      const int client = ::accept4(listener.socket, nullptr, nullptr, SOCK_CLOEXEC);
      if (listener.is_ending) {
        if (client >= 0) ::close(client);
        return;
      }
      if (client < 0) continue;
      listener.connections.emplace_back([this, &listener, client] {
        TlsSocket socket(client, listener.tls.get());
        const std::string head = socket.read_head();
        if (head.empty()) return;
        const HubRequest request = parse_request(head);
        const auto taken = take(request);
        const HubReply reply = taken ? *taken : answer(request);
        write_reply(socket, request, reply);
        while (reply.is_silent_then && !listener.is_ending) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
      });
    }
  });
}

HubServer::~HubServer() {
  listener_->is_ending = true;
  ::shutdown(listener_->socket, SHUT_RDWR);
  listener_->acceptor.join();
  for (std::thread& connection : listener_->connections) connection.join();
  ::close(listener_->socket);
}

std::optional<HubReply> HubServer::take(const HubRequest& request) {
  const std::lock_guard lock(listener_->mutex);
  listener_->requests.push_back(request);
  return hook ? hook(request) : std::nullopt;
}

std::string HubServer::endpoint() const {
  return vlm::concat(listener_->tls ? "https" : "http", "://127.0.0.1:", listener_->port);
}

std::string HubServer::other_host() const {
  return vlm::concat(listener_->tls ? "https" : "http", "://localhost:", listener_->port);
}

std::string HubServer::certificate() const {
  return listener_->tls->certificate();
}

std::vector<HubRequest> HubServer::requests() const {
  const std::lock_guard lock(listener_->mutex);
  return listener_->requests;
}

void HubServer::forget_requests() {
  const std::lock_guard lock(listener_->mutex);
  listener_->requests.clear();
}

int HubServer::count(const std::string& method, const std::string& part_of_path) const {
  int count = 0;
  for (const HubRequest& request : requests()) count += request.is(method, part_of_path) ? 1 : 0;
  return count;
}

HubReply HubServer::answer(const HubRequest& request) const {
  const std::string path = unquoted(request.path.substr(0, request.path.find('?')));
  if (request.host.starts_with("localhost")) {
    if (!request.authorization.empty()) return {.status = 400, .body = "a token for somebody else"};
    if (path.starts_with("/cdn/")) return answer_content(request, path.substr(5));
    return {.status = 404};
  }
  if (!token.empty() && request.authorization != "Bearer " + token) {
    return refusal(401, "GatedRepo", "Access to model " + model + " is restricted.");
  }
  const std::string api = (is_dataset ? "/api/datasets/" : "/api/models/") + model;
  if (path == api + "/refs") {
    std::string names;
    for (const auto& name : revisions)
      names += (names.empty() ? "" : ",") + ("{\"name\":" + quoted(name) + "}");
    return {.body = "{\"branches\":[" + names + "],\"tags\":[]}"};
  }
  if (path.starts_with(api + "/revision/")) {
    const std::string revision = path.substr(api.size() + 10);
    const bool is_known = revision == commit || std::find(revisions.begin(), revisions.end(),
                                                          revision) != revisions.end();
    if (!is_known) return refusal(404, "RevisionNotFound", "Invalid rev id: " + revision);
    std::string names;
    const auto add = [&](const std::string& name) {
      names += (names.empty() ? "" : ",") + ("{\"rfilename\":" + quoted(name) + "}");
    };
    for (const auto& [name, file] : files) add(name);
    for (const std::string& name : more_names) add(name);
    return {.body = "{\"sha\":\"" + commit + "\",\"siblings\":[" + names + "]}"};
  }
  return answer_file(request, path);
}

HubReply HubServer::answer_file(const HubRequest& request, const std::string& path) const {
  const std::string resolve =
      (is_dataset ? "/datasets/" : "/") + model + "/resolve/" + commit + "/";
  const std::string cache = std::string("/api/resolve-cache/") +
                            (is_dataset ? "datasets/" : "models/") + model + "/" + commit + "/";
  const bool is_resolve = path.starts_with(resolve);
  if (!is_resolve && !path.starts_with(cache)) {
    return refusal(401, "RepoNotFound", "Invalid username or password.");
  }
  const std::string name = path.substr(is_resolve ? resolve.size() : cache.size());
  const auto found = files.find(name);
  if (found == files.end()) return refusal(404, "EntryNotFound", "Entry not found");
  const HubServerFile& file = found->second;
  const std::string hash = file.told_hash.empty() ? hub_hash(file) : file.told_hash;
  const std::string size =
      file.told_size.empty() ? vlm::concat(file.content.size()) : file.told_size;
  HubReply reply{.headers = {{"X-Repo-Commit", commit}}};
  if (is_resolve) {
    reply.status = file.is_lfs ? 302 : 307;
    reply.headers.emplace_back("X-Linked-Etag", "\"" + hash + "\"");
    reply.headers.emplace_back("X-Linked-Size", size);
    reply.headers.emplace_back(
        "Location",
        file.is_lfs ? other_host() + "/cdn/" + hub_hash(file) + "?key=secret" : cache + name);
    return reply;
  }
  reply.headers.emplace_back("ETag", "\"" + hash + "\"");
  if (request.method == "HEAD") reply.headers.emplace_back("Content-Length", size);
  reply.body = file.content;
  return reply;
}

HubReply HubServer::answer_content(const HubRequest& request, const std::string& hash) const {
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const auto& file) { return hub_hash(file.second) == hash; });
  if (found == files.end()) return {.status = 404};
  const std::string& content = found->second.content;
  if (request.range.empty() || !has_ranges) return {.body = content};
  const std::size_t start = std::stoull(request.range.substr(std::string("bytes=").size()));
  if (start >= content.size()) return {.status = 416};
  return {.status = 206,
          .headers = {{"Content-Range",
                       vlm::concat("bytes ", start, "-", content.size() - 1, "/", content.size())}},
          .body = content.substr(start)};
}

std::string hub_hash(const HubServerFile& file) {
  if (file.is_lfs) return vlm::sha256_hex(file.content);
  vlm::Sha1 digest;
  digest.update(vlm::concat("blob ", file.content.size(), '\0'));
  digest.update(file.content);
  return digest.hex_digest();
}

std::map<std::string, HubServerFile> tiny_model_files(std::size_t weight_bytes) {
  std::string weights;
  for (std::size_t i = 0; i < weight_bytes; ++i) weights += static_cast<char>(i * 7 % 251);
  return {{"config.json", {"{\"model_type\": \"tiny\"}"}},
          {"tokenizer.json", {"{}"}},
          {"preprocessor_config.json", {"{\"size\": 1}"}},
          {"chat_template.jinja", {"{{ messages }}"}},
          {"additional_chat_templates/tool use.jinja", {"{{ tools }}"}},
          {"README.md", {"# Tiny\n"}},
          {"empty.txt", {""}},
          {"model.safetensors", {weights, /*is_lfs=*/true}},
          {"pytorch_model.bin", {"pickle", /*is_lfs=*/true}},
          {"modeling_tiny.py", {"import os"}},
          {"onnx/model.safetensors", {"export", /*is_lfs=*/true}},
          {"onnx/config.json", {"{}"}}};
}
