// One connection: reads a request, has it answered, goes on with the next.
//
//   kHead ─► kBody ─► kAnswering ─► kHead …        kLingering: the last answer is on its way
//
// One read is always pending, also while an answer is made: so the end of the connection is noticed
// between tokens. With TLS a kHandshake goes before all. A client that closes its sending side
// counts as gone. Bytes of a next request wait in the buffer. All of it runs on the network thread;
// deadlines are looked at in tick().
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "infer/server/http/http_head.h"
#include "infer/server/http/network.h"
#include "infer/server/http/request_parser.h"

namespace vlm::infer {

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<Network> network, Socket socket, std::string peer);

  void start();
  void tick(Clock::time_point now);
  // Ends at once; an answer that is being made counts as gone.
  void close();
  bool is_closed() const { return state_ == State::kClosed; }
  // Closes if no request is being read or answered.
  void close_if_idle();
  const std::string& peer() const { return peer_; }

 private:
  class Answer;  // the Exchange of one request
  enum class State { kHandshake, kHead, kBody, kAnswering, kLingering, kClosed };

  void read();
  void on_read(std::size_t count);
  void take_input();
  void begin_request(RequestParser::Head head);
  void begin_body(bool wants_continue);
  void take_body();
  void refuse(const Refusal& refusal);

  void reply(const WebReply& reply);
  void begin_stream(const WebReply& head, std::string beat);
  void send(std::string piece);
  void end_stream();
  void write(std::string bytes);
  void write_next();
  void finish_answer();
  void end_exchange(bool is_gone);
  void enter(State state);
  void check_time_to_read(Clock::duration passed);

  std::shared_ptr<Network> network_;
  Channel channel_;
  const std::string peer_;
  State state_ = State::kHead;
  Clock::time_point since_ = Clock::now();  // when the state began; of kHead, its first byte came
  Clock::time_point progress_ = since_;     // of writing

  std::array<char, 16 << 10> read_buffer_;
  std::string input_;  // read and not taken
  bool is_reading_ = false;
  bool is_first_ = true;  // no request has been answered yet

  // The request that is read or answered.
  RequestParser parser_;
  WebRequest request_;  // handed over when it is whole
  std::string id_, method_, path_;
  ResponseForm form_;
  std::size_t body_size_ = 0;
  std::int64_t counted_bytes_ = 0;  // of the body, in Network::body_bytes
  Clock::time_point asked_at_;      // when the head was there

  std::shared_ptr<Answer> answer_;  // null: nothing is being answered
  int status_ = 0;                  // that was sent; 0: none yet
  bool has_answered_ = false;       // all of it is in the output
  bool is_streaming_ = false;
  std::string beat_;

  std::deque<std::string> output_;
  std::size_t written_ = 0, unsent_ = 0;  // of the first of them; of all
  bool is_writing_ = false;
};

}  // namespace vlm::infer
