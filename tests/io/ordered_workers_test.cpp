// A pool of threads whose results come in order, whatever is thrown in them and wherever.
#include "vlm/io/ordered_workers.h"

#include <pthread.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <fstream>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

using IntWorkers = OrderedWorkers<int, int>;
using namespace std::chrono_literals;

// Opens 0 … count - 1.
std::function<std::optional<int>()> count_up(int count) {
  return [count, next = std::make_shared<int>(0)]() -> std::optional<int> {
    return *next < count ? std::optional<int>((*next)++) : std::nullopt;
  };
}

// Later jobs are quicker, so that they are made out of order.
void make_square(int job, IntWorkers::Output& output) {
  if (job % 3 == 0) std::this_thread::sleep_for(200us);
  output.put(job * job);
}

template <typename Workers>
std::vector<int> take_all(Workers& workers) {
  std::vector<int> taken;
  while (std::optional<int> value = workers.next()) taken.push_back(*value);
  return taken;
}

std::vector<int> squares(int count) {
  std::vector<int> all;
  for (int i = 0; i < count; ++i) all.push_back(i * i);
  return all;
}

TEST_CASE("values come in the order of their jobs, with any number of workers ahead") {
  for (const std::int64_t threads : {0, 1, 2, 7}) {
    for (const std::int64_t ahead : {0, 1, 3, 100}) {
      IntWorkers workers({.name = "square", .workers = threads, .ahead = ahead},
                         {.open = count_up(60), .make = make_square});
      CHECK(take_all(workers) == squares(60));
      CHECK_FALSE(workers.next());  // the end stays the end
      CHECK(workers.is_ready());
    }
  }
}

TEST_CASE("no job is an end at once, and a job without values is passed over") {
  IntWorkers none({.name = "none"}, {.open = count_up(0), .make = make_square});
  CHECK_FALSE(none.next());
  IntWorkers odd({.name = "odd", .workers = 3},
                 {.open = count_up(9), .make = [](int job, auto& out) {
                    if (job % 2 == 1) out.put(job);
                  }});
  CHECK(take_all(odd) == std::vector<int>{1, 3, 5, 7});
  CHECK_FALSE(odd.next());
}

TEST_CASE("a job's values come one after the other, and no more of them than may wait") {
  std::atomic<int> put = 0, taken = 0, most = 0;
  IntWorkers workers({.name = "several", .workers = 1, .values = 3},
                     {.open = count_up(2), .make = [&](int job, auto& out) {
                        for (int i = 0; i < 50; ++i) {
                          out.put(job * 100 + i);
                          most = std::max(most.load(), ++put - taken);
                        }
                      }});
  std::vector<int> wanted(100);
  std::iota(wanted.begin(), wanted.begin() + 50, 0);
  std::iota(wanted.begin() + 50, wanted.end(), 100);
  for (const int value : wanted) {
    CHECK(workers.next() == value);
    ++taken;
  }
  CHECK_FALSE(workers.next());
  CHECK(most <= 3 + 3 + 1);  // of both jobs, and the one on its way to the taker
}

// What was thrown, as text; "" for a value or the end.
template <typename Workers>
std::string thrown_by(Workers& workers) {
  try {
    workers.next();
  } catch (const std::bad_alloc&) {
    return "bad_alloc";
  } catch (const std::exception& error) {
    return error.what();
  } catch (int number) {
    return std::to_string(number);
  }
  return "";
}

const std::array<std::pair<std::string, std::function<void()>>, 4> kThrows = {{
    {"bad_alloc", [] { throw std::bad_alloc(); }},
    {"out of range", [] { throw std::out_of_range("out of range"); }},
    {"nothing here", [] { throw Error({.what = "nothing here"}); }},
    {"7", [] { throw 7; }},
}};

TEST_CASE("whatever a stage throws comes behind the values before it, again and again") {
  for (const auto& [text, fail] : kThrows) {
    for (const int stage : {0, 1, 2}) {
      for (const int at : {1, 2, 11}) {
        IntWorkers::Work work{.open = count_up(40), .make = make_square};
        if (stage == 0) {
          work.open = [&fail = fail, at, open = count_up(40)] {
            const auto job = open();
            if (job == at) fail();
            return job;
          };
        } else {
          work.make = [&fail = fail, at, stage](int job, auto& out) {
            if (stage == 1 && job == at) fail();
            make_square(job, out);
            if (stage == 2 && job + 1 == at) fail();  // behind its value
          };
        }
        IntWorkers workers({.name = "throws", .workers = 4, .ahead = 8}, std::move(work));
        std::vector<int> taken;
        for (int i = 0; i < at; ++i) taken.push_back(workers.next().value_or(-1));
        CHECK(taken == squares(at));
        for (int again = 0; again < 3; ++again) CHECK(thrown_by(workers) == text);
        CHECK(workers.is_ready());
      }
    }
  }
}

TEST_CASE("of several failures the first in order is told, though a later one came sooner") {
  std::atomic<bool> has_later_failed = false;
  IntWorkers workers({.name = "two", .workers = 2, .ahead = 2},
                     {.open = count_up(2), .make = [&](int job, auto&) {
                        while (job == 0 && !has_later_failed) std::this_thread::sleep_for(100us);
                        has_later_failed = true;
                        throw std::runtime_error(job == 0 ? "first" : "second");
                      }});
  while (!has_later_failed) std::this_thread::sleep_for(100us);
  CHECK(thrown_by(workers) == "first");
  CHECK(thrown_by(workers) == "first");
}

TEST_CASE("a failure behind some values of a job comes behind them") {
  IntWorkers workers({.name = "late", .values = 2},
                     {.open = count_up(1), .make = [](int, auto& out) {
                        for (int i = 0; i < 5; ++i) out.put(i);
                        throw std::bad_alloc();
                      }});
  for (int i = 0; i < 5; ++i) CHECK(workers.next() == i);
  CHECK(thrown_by(workers) == "bad_alloc");
}

// Has no copy, and its move fails where it is told to.
struct Heavy {
  explicit Heavy(int id) : id(id) {}
  Heavy(Heavy&& other) : id(other.id) {
    if (other.id == 3) throw std::bad_alloc();
  }
  int id;
};

TEST_CASE("a value that can't be kept is the failure of its job") {
  OrderedWorkers<int, Heavy> workers(
      {.name = "heavy", .workers = 2},
      {.open = count_up(9), .make = [](int job, auto& out) { out.put(Heavy(job)); }});
  for (int i = 0; i < 3; ++i) CHECK(workers.next()->id == i);
  CHECK(thrown_by(workers) == "bad_alloc");
}

TEST_CASE("so many jobs are opened ahead, one at a time") {
  for (const std::int64_t threads : {1, 3}) {
    for (const std::int64_t ahead : {1, 2, 8}) {
      std::atomic<int> inside = 0, opened = 0;
      std::atomic<bool> overlap = false;
      IntWorkers workers({.name = "ahead", .workers = threads, .ahead = ahead},
                         {.open =
                              [&, open = count_up(50)] {
                                if (++inside > 1) overlap = true;
                                std::this_thread::sleep_for(20us);
                                --inside;
                                ++opened;
                                return open();
                              },
                          .make = make_square});
      for (int i = 0; i < 20; ++i) {
        CHECK(opened <= i + ahead);
        CHECK(workers.next() == i * i);
      }
      std::this_thread::sleep_for(20ms);
      CHECK(opened == 20 + ahead);
      CHECK_FALSE(overlap);
    }
  }
}

TEST_CASE("who gives the jobs may say how many are opened ahead") {
  std::atomic<std::int64_t> limit = 1, most_held = 0;
  std::atomic<int> opened = 0;
  IntWorkers workers({.name = "bound", .workers = 2}, {.open =
                                                           [&, open = count_up(10)] {
                                                             ++opened;
                                                             return open();
                                                           },
                                                       .make = make_square,
                                                       .may_open =
                                                           [&](std::int64_t held) {
                                                             most_held =
                                                                 std::max(most_held.load(), held);
                                                             return opened < limit;
                                                           }});
  CHECK(workers.next() == 0);
  CHECK_FALSE(workers.is_ready(20ms));
  limit = 4;
  workers.wake();
  for (int i = 1; i < 4; ++i) CHECK(workers.next() == i * i);
  CHECK_FALSE(workers.is_ready(20ms));
  CHECK(most_held <= 3);
  limit = 100;
  workers.wake();
  for (int i = 4; i < 10; ++i) CHECK(workers.next() == i * i);
  CHECK_FALSE(workers.next());
}

TEST_CASE("the pool can go at any moment") {
  for (int taken = 0; taken < 12; ++taken) {
    for (const auto pause : {0us, 50us, 400us}) {
      std::atomic<int> alive = 0;
      {
        IntWorkers workers({.name = "gone", .workers = 3, .ahead = 5, .values = 2},
                           {.open =
                                [&, open = count_up(30)] {
                                  std::this_thread::sleep_for(30us);
                                  return open();
                                },
                            .make =
                                [&](int job, auto& out) {
                                  ++alive;
                                  for (int i = 0; i < 4 && out.put(job); ++i) {
                                    std::this_thread::sleep_for(30us);
                                  }
                                  --alive;
                                }});
        for (int i = 0; i < taken; ++i) workers.next();
        std::this_thread::sleep_for(pause);
      }
      CHECK(alive == 0);
    }
  }
}

TEST_CASE("a long job sees that nobody wants it any more") {
  std::atomic<bool> has_begun = false, was_wanted = true;
  {
    IntWorkers workers({.name = "long"}, {.open = count_up(1), .make = [&](int, auto& out) {
                                            has_begun = true;
                                            while (out.is_wanted())
                                              std::this_thread::sleep_for(1ms);
                                            was_wanted = out.put(1);
                                          }});
    while (!has_begun) std::this_thread::sleep_for(100us);
    CHECK_FALSE(workers.is_ready());
    CHECK_FALSE(workers.is_ready(5ms));
  }
  CHECK_FALSE(was_wanted);
}

TEST_CASE("pools can stand behind each other") {
  IntWorkers first({.name = "first", .workers = 2, .ahead = 4},
                   {.open = count_up(60), .make = make_square});
  IntWorkers second({.name = "second", .ahead = 1},
                    {.open = count_up(20), .make = [&](int, auto& out) {
                       int sum = 0;
                       for (int i = 0; i < 3; ++i) sum += first.next().value_or(0);
                       out.put(sum);
                     }});
  for (int i = 0; i < 5; ++i) {
    CHECK(second.next() == 9 * i * i + 6 * i * 3 + 5 + 9 * i * i * 2);
  }
}

#ifdef __linux__
TEST_CASE("workers have a name that the system shows") {
  OrderedWorkers<int, std::string> workers({.name = "vlm a long name indeed"},
                                           {.open = count_up(1), .make = [](int, auto& out) {
                                              std::array<char, 32> name = {};
                                              ::pthread_getname_np(::pthread_self(), name.data(),
                                                                   name.size());
                                              out.put(name.data());
                                            }});
  CHECK(workers.next() == "vlm a long name");
}

// New threads get stacks of this size.
struct StackSizeGuard {
  explicit StackSizeGuard(std::size_t bytes) {
    ::pthread_getattr_default_np(&before);
    ::pthread_getattr_default_np(&wanted);
    ::pthread_attr_setstacksize(&wanted, bytes);
    ::pthread_setattr_default_np(&wanted);
  }
  ~StackSizeGuard() { ::pthread_setattr_default_np(&before); }
  pthread_attr_t before, wanted;
};

TEST_CASE("a thread that can't be started is an error") {
  const StackSizeGuard guard(std::size_t{1} << 46);  // more than there are addresses for
  CHECK_THROWS_WITH(
      IntWorkers({.name = "vlm media", .workers = 2}, {.open = count_up(3), .make = make_square}),
      Contains("vlm media: can't start a thread: got Resource temporarily "
               "unavailable (the system bounds threads and memory: see ulimit -u"));
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // they take all addresses
std::size_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * 4096;
}

struct AddressGuard {
  explicit AddressGuard(std::size_t more) {
    ::getrlimit(RLIMIT_AS, &before);
    const rlimit wanted{address_space() + more, before.rlim_max};
    ::setrlimit(RLIMIT_AS, &wanted);
  }
  ~AddressGuard() { ::setrlimit(RLIMIT_AS, &before); }
  rlimit before;
};

TEST_CASE("the work is done by those threads that could be started, with a warning") {
  std::vector<std::string> messages;
  set_log_sink([&](LogLevel, const std::string& message) { messages.push_back(message); });
  {
    const StackSizeGuard guard(std::size_t{1} << 32);
    const AddressGuard addresses(std::size_t{6} << 30);  // one such stack and its heap
    IntWorkers workers({.name = "few", .workers = 3}, {.open = count_up(20), .make = make_square});
    CHECK(take_all(workers) == squares(20));
  }
  set_log_sink({});
  REQUIRE(messages.size() == 1);
  CHECK_THAT(messages[0], Contains("few: goes on with 1 of 3 threads: Resource temporarily"));
}
#endif
#endif

}  // namespace
}  // namespace vlm
