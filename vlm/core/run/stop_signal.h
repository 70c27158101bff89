// Requests to stop: Ctrl-C, SIGTERM, SIGHUP.
//
//   signal ─► watch_for_stop's handler ─► stop_requested() between items ─► an end that leaves
//   everything to go on from ─► stop_exit_code()
//
// Long work looks at it between its items. Where there is nothing to finish first,
// throw_if_stopped() ends it. Any thread may ask.
#pragma once

#include <exception>

namespace vlm {

// Thrown by work that was told to stop. No Error: nothing is wrong, and no item is to blame.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "stopped"; }
};

// True after Ctrl-C, SIGTERM or SIGHUP.
bool stop_requested();

// Throws Interrupted once stop_requested().
void throw_if_stopped();

// Exit code of a program that was stopped, as shells have it: 130 after Ctrl-C, 143 after SIGTERM,
// 129 after SIGHUP; 143 when another process of its job was told to stop.
int stop_exit_code();

// Requests a stop as the signal would; 0 takes the request back.
void request_stop(int signal);

// Installs the handlers. A second Ctrl-C or SIGTERM ends the program at once, unless it comes
// within 0.3 s: some programs (timeout) send a signal to the process and to its group. SIGHUP only
// ever asks, since a closed terminal sends several, and stays ignored where it was (nohup).
// Called by main.cpp.
void watch_for_stop();

}  // namespace vlm
