#include "vlm/io/ordered_workers.h"

#include <pthread.h>

#include <system_error>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/parallel.h"

namespace vlm {
namespace {

constexpr std::size_t kMostOfName = 15;  // that Linux keeps of a thread's name

}  // namespace

void start_workers(std::vector<std::jthread>& threads, const WorkerSettings& settings,
                   const std::function<void(std::stop_token)>& work) {
  const auto start = [name = settings.name.substr(0, kMostOfName), work](std::stop_token stop) {
    ::pthread_setname_np(::pthread_self(), name.c_str());
    use_one_thread();
    work(std::move(stop));
  };
  threads.reserve(static_cast<std::size_t>(settings.workers));
  try {
    while (std::ssize(threads) < settings.workers) threads.emplace_back(start);
  } catch (const std::system_error& error) {
    if (threads.empty()) {
      throw Error({.what = "can't start a thread",
                   .where = settings.name,
                   .got = error.code().message(),
                   .hint = "the system bounds threads and memory: see ulimit -u and ulimit -v"});
    }
    log_warning(concat(settings.name, ": goes on with ", threads.size(), " of ", settings.workers,
                       " threads: ", error.code().message()));
  }
}

}  // namespace vlm
