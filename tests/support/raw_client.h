// A client that sends bytes as they are, good HTTP or not, and reads what comes back.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>
#include <string_view>

class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  explicit RawClient(const std::string& unix_path) : socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, unix_path.c_str(), sizeof address.sun_path - 1);
    is_connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool is_connected() const { return is_connected_; }

  // False when the other side takes no more.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  void end_sending() { ::shutdown(socket_, SHUT_WR); }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }

  // Reads until `wanted` is in what came, the connection ends, or the time is over.
  std::string read_until(std::string_view wanted,
                         std::chrono::milliseconds time = std::chrono::seconds(20)) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (received_.find(wanted) == std::string::npos || wanted.empty()) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          end - std::chrono::steady_clock::now());
      pollfd waiting = {socket_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) == 0) break;
      char buffer[65536];
      const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
      is_ended_ = count <= 0;
      if (is_ended_) break;
      received_.append(buffer, static_cast<std::size_t>(count));
    }
    return received_;
  }
  // Everything until the other side closes.
  std::string read_all(std::chrono::milliseconds time = std::chrono::seconds(20)) {
    return read_until("", time);
  }
  // One response with a length; takes it off what came.
  std::string read_response(std::chrono::milliseconds time = std::chrono::seconds(20)) {
    read_until("\r\n\r\n", time);
    const auto head = received_.find("\r\n\r\n");
    if (head == std::string::npos) return received_;
    const auto at = received_.find("Content-Length: ");
    const std::size_t length = at < head ? std::stoul(received_.substr(at + 16)) : 0;
    const std::size_t size = head + 4 + length;
    const auto end = std::chrono::steady_clock::now() + time;
    while (received_.size() < size && !is_ended_ && std::chrono::steady_clock::now() < end) {
      const std::size_t before = received_.size();
      read_until("\x01never", std::chrono::milliseconds(20));
      if (received_.size() == before && is_ended_) break;
    }
    std::string response = received_.substr(0, size);
    received_.erase(0, size);
    return response;
  }
  // The other side has closed the connection.
  bool has_ended(std::chrono::milliseconds time = std::chrono::seconds(20)) {
    read_all(time);
    return is_ended_;
  }

 private:
  int socket_;
  bool is_connected_ = false, is_ended_ = false;
  std::string received_;
};

inline std::string post_request(const std::string& path, const std::string& body,
                                const std::string& headers = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
         headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

inline std::string get_request(const std::string& path, const std::string& headers = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

inline int status_of(const std::string& response) {
  return response.size() < 12 ? 0 : std::stoi(response.substr(9, 3));
}

inline std::string body_of(const std::string& response) {
  const auto end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}
