#include "infer/server/http/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <mutex>

#include "vlm/core/concat.h"

namespace vlm::infer {

namespace asio = boost::asio;
using Code = boost::system::error_code;

constexpr std::size_t kMostPipelined = 64 << 10;
constexpr int kClientLeft = 499;  // of requests that nobody waits for any more, in logs

// Calls from any thread become posts to the connection, if it still answers this request.
class HttpConnection::Answer : public Exchange, public std::enable_shared_from_this<Answer> {
 public:
  Answer(std::shared_ptr<Network> network, std::weak_ptr<HttpConnection> connection)
      : network_(std::move(network)), connection_(std::move(connection)) {}

  void reply(WebReply reply) override {
    post([reply = std::move(reply)](HttpConnection& to) { to.reply(reply); });
  }
  void begin_stream(WebReply head, std::string beat) override {
    post([head = std::move(head), beat = std::move(beat)](HttpConnection& to) {
      to.begin_stream(head, beat);
    });
  }
  void send(std::string piece) override {
    post([piece = std::move(piece)](HttpConnection& to) { to.send(piece); });
  }
  void end_stream() override {
    post([](HttpConnection& to) { to.end_stream(); });
  }

  bool is_gone() const override { return is_gone_; }
  void on_gone(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!is_gone_) {
        callback_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  // The answer is out, or the client has left.
  void end(bool is_gone) {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      is_gone_ = is_gone;
      callback = std::exchange(callback_, nullptr);
    }
    if (is_gone && callback) callback();
  }

 private:
  template <typename Act>
  void post(Act act) {
    if (is_gone_ || network_->is_stopped) return;
    asio::post(network_->loop, [self = shared_from_this(), act = std::move(act)] {
      const auto connection = self->connection_.lock();
      if (connection && connection->answer_ == self) act(*connection);
    });
  }

  std::shared_ptr<Network> network_;
  std::weak_ptr<HttpConnection> connection_;
  std::atomic<bool> is_gone_{false};
  std::mutex mutex_;  // of the callback
  std::function<void()> callback_;
};

HttpConnection::HttpConnection(std::shared_ptr<Network> network, Socket socket, std::string peer)
    : network_(std::move(network)),
      channel_(std::move(socket), network_->identity.get()),
      peer_(std::move(peer)),
      parser_({.max_header_bytes = network_->options.max_header_bytes,
               .max_target_bytes = network_->options.max_target_bytes,
               .max_body_bytes = network_->options.max_body_bytes}) {
  ++network_->connections;
}

void HttpConnection::start() {
  if (!channel_.has_tls()) return read();
  enter(State::kHandshake);
  channel_.shake_hands([self = shared_from_this()](const Code& code, std::size_t) {
    if (code || self->state_ != State::kHandshake) return self->close();
    self->enter(State::kHead);
    self->read();
  });
}

void HttpConnection::enter(State state) {
  state_ = state;
  since_ = Clock::now();
}

void HttpConnection::read() {
  const bool has_room = state_ != State::kAnswering || input_.size() < kMostPipelined;
  if (is_reading_ || state_ == State::kClosed || !has_room) return;
  is_reading_ = true;
  channel_.read(asio::buffer(read_buffer_),
                [self = shared_from_this()](const Code& code, std::size_t count) {
                  self->is_reading_ = false;
                  if (code) return self->close();
                  self->on_read(count);
                });
}

void HttpConnection::on_read(std::size_t count) {
  if (state_ == State::kClosed) return;
  if (state_ == State::kHead && input_.empty()) since_ = Clock::now();
  if (state_ != State::kLingering) input_.append(read_buffer_.data(), count);
  take_input();
  read();
}

void HttpConnection::take_input() {
  if (state_ == State::kBody) return take_body();
  if (state_ != State::kHead || input_.empty()) return;
  auto head = parser_.take(input_);
  if (!head) return;
  parser_.reset();
  begin_request(std::move(*head));
}

void HttpConnection::begin_request(RequestParser::Head head) {
  asked_at_ = Clock::now();
  request_ = std::move(head.request);
  request_.peer = peer_;
  id_ = request_.id;
  method_ = request_.method;
  path_ = request_.path;
  body_size_ = head.body_size;
  form_ = {.is_http_1_0 = head.is_http_1_0,
           .keeps_connection = head.keeps_connection,
           .is_body_hidden = method_ == "HEAD"};
  status_ = 0;
  has_answered_ = is_streaming_ = false;
  answer_ = std::make_shared<Answer>(network_, weak_from_this());
  ++network_->exchanges;
  enter(State::kAnswering);
  if (head.refusal) return refuse(*head.refusal);
  if (const auto early = network_->handler.check(request_)) {
    form_.keeps_connection = form_.keeps_connection && body_size_ == 0;
    return reply(*early);
  }
  begin_body(head.wants_continue);
}

void HttpConnection::begin_body(bool wants_continue) {
  const auto size = static_cast<std::int64_t>(body_size_);
  if (size > 0 && network_->body_bytes + size > network_->options.max_bodies_bytes) {
    return refuse({429, "queue_full", "too many large requests at once; try again later"});
  }
  counted_bytes_ = size;
  network_->body_bytes += size;
  if (wants_continue && input_.size() < body_size_) write("HTTP/1.1 100 Continue\r\n\r\n");
  enter(State::kBody);
  take_body();
}

void HttpConnection::take_body() {
  const std::size_t missing = body_size_ - request_.body.size();
  const std::size_t here = std::min(missing, input_.size());
  request_.body.append(input_, 0, here);
  input_.erase(0, here);
  if (here < missing) return;
  enter(State::kAnswering);
  network_->handler.handle(std::move(request_), answer_);
}

void HttpConnection::refuse(const Refusal& refusal) {
  form_.keeps_connection = false;
  enter(State::kAnswering);
  reply(network_->handler.refuse(refusal.status, refusal.code, refusal.message));
}

void HttpConnection::reply(const WebReply& reply) {
  if (has_answered_ || is_streaming_ || state_ != State::kAnswering) return;
  has_answered_ = true;
  status_ = reply.status;
  form_.keeps_connection = form_.keeps_connection && !network_->is_draining;
  write(response_head(reply, id_, form_) + (form_.is_body_hidden ? "" : reply.body));
}

void HttpConnection::begin_stream(const WebReply& head, std::string beat) {
  if (has_answered_ || is_streaming_ || state_ != State::kAnswering) return;
  is_streaming_ = form_.is_stream = true;
  ++network_->streams;
  status_ = head.status;
  beat_ = std::move(beat);
  form_.keeps_connection = form_.keeps_connection && !form_.is_http_1_0 && !network_->is_draining;
  write(response_head(head, id_, form_));
}

void HttpConnection::send(std::string piece) {
  if (!is_streaming_ || has_answered_ || state_ != State::kAnswering || piece.empty()) return;
  const auto unsent = static_cast<std::int64_t>(unsent_ + piece.size());
  if (unsent_ > 0 && unsent > network_->options.max_unsent_bytes) return close();
  write(form_.is_http_1_0 ? std::move(piece) : chunk_of(piece));
}

void HttpConnection::end_stream() {
  if (!is_streaming_ || has_answered_ || state_ != State::kAnswering) return;
  has_answered_ = true;
  write(form_.is_http_1_0 ? std::string() : std::string(kLastChunk));
}

void HttpConnection::write(std::string bytes) {
  if (state_ == State::kClosed) return;
  progress_ = output_.empty() ? Clock::now() : progress_;
  unsent_ += bytes.size();
  output_.push_back(std::move(bytes));
  write_next();
}

void HttpConnection::write_next() {
  if (is_writing_ || state_ == State::kClosed) return;
  while (!output_.empty() && written_ == output_.front().size()) {
    output_.pop_front();
    written_ = 0;
  }
  if (output_.empty() && has_answered_) return finish_answer();
  if (output_.empty()) return;
  is_writing_ = true;
  channel_.write(asio::buffer(output_.front()) + written_,
                 [self = shared_from_this()](const Code& code, std::size_t count) {
                   self->is_writing_ = false;
                   if (code) return self->close();
                   self->progress_ = Clock::now();
                   self->written_ += count;
                   self->unsent_ -= count;
                   self->write_next();
                 });
}

void HttpConnection::finish_answer() {
  if (state_ != State::kAnswering) return;
  end_exchange(false);
  has_answered_ = is_first_ = false;
  if (!form_.keeps_connection) {
    channel_.end_writing();
    enter(State::kLingering);  // closing at once could take the answer's end away
    input_.clear();
    return;
  }
  enter(State::kHead);
  // From the loop: a client that sent many requests at once fills no stack.
  asio::post(network_->loop, [self = shared_from_this()] {
    self->take_input();
    self->read();
  });
}

void HttpConnection::end_exchange(bool is_gone) {
  const auto answer = std::exchange(answer_, nullptr);
  if (!answer) return;
  if (std::exchange(is_streaming_, false)) --network_->streams;
  network_->body_bytes -= std::exchange(counted_bytes_, 0);
  answer->end(is_gone);
  network_->handler.ended(
      {.id = id_,
       .method = method_,
       .path = path_,
       .status = status_ == 0 ? kClientLeft : status_,
       .is_gone = is_gone,
       .seconds = std::chrono::duration<double>(Clock::now() - asked_at_).count(),
       .facts = answer->facts});
  request_ = {};
  --network_->exchanges;
}

void HttpConnection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  channel_.close();
  end_exchange(true);
  --network_->connections;
}

void HttpConnection::close_if_idle() {
  if (state_ == State::kHead || state_ == State::kHandshake) close();
}

void HttpConnection::tick(Clock::time_point now) {
  const HttpOptions& options = network_->options;
  if (state_ == State::kClosed) return;
  if (!output_.empty() && now - progress_ > options.write_time) return close();
  if (state_ == State::kLingering && now - since_ > options.linger_time) return close();
  const bool is_silent = is_streaming_ && output_.empty() && now - progress_ > options.beat_time;
  if (is_silent) send(beat_);
  check_time_to_read(now - since_);
}

void HttpConnection::check_time_to_read(Clock::duration passed) {
  const HttpOptions& options = network_->options;
  if (state_ == State::kHandshake) {
    if (passed > options.header_time) close();
  } else if (state_ == State::kHead && input_.empty()) {
    if (passed > (is_first_ ? options.header_time : options.idle_time)) close();
  } else if (state_ == State::kHead && passed > options.header_time) {
    RequestParser::Head head;
    head.request.id = request_id("");
    head.refusal = Refusal{408, "request_timeout", "the request's headers did not come in time"};
    begin_request(std::move(head));
  } else if (state_ == State::kBody) {
    const auto by_rate = std::chrono::milliseconds(1000 * static_cast<std::int64_t>(body_size_) /
                                                   options.body_bytes_per_s);
    if (passed <= std::max(options.body_time, by_rate)) return;
    refuse({408, "request_timeout", "the request's body did not come in time"});
  }
}

}  // namespace vlm::infer
