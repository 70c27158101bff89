// A port for the processes of one job on this machine.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

// One that nobody listens on at the moment.
inline int find_free_port() {
  const int server = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(server, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(server, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(server);
  return ntohs(address.sin_port);
}
