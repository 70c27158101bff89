// The part of NCCL that the program uses, for processes of one machine: sums through a file in
// memory that all of them map. As with NCCL, a lost process shows in ncclCommGetAsyncError.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/memory.h"

namespace simulated_nccl {

constexpr int kSuccess = 0, kSystemError = 2, kRemoteError = 6;
constexpr int kMostRanks = 8;
constexpr std::size_t kMostFloats = std::size_t{1} << 24;  // of one sum

// Zeros at first. All ranks meet when they have joined, and at each sum behind writing and behind
// reading.
struct Shared {
  std::atomic<int> processes[kMostRanks];
  std::atomic<long> arrivals;
  float values[kMostRanks][kMostFloats];  // pages that nobody touches take no memory
};

}  // namespace simulated_nccl

using simulated_nccl::Shared, simulated_nccl::kMostFloats, simulated_nccl::kMostRanks,
    simulated_nccl::kRemoteError, simulated_nccl::kSuccess, simulated_nccl::kSystemError;

struct Opaque {
  std::string name;
  Shared* shared = nullptr;
  int ranks = 0, rank = 0;
  long meetings = 0;
  std::atomic<int> state{kSuccess};

  // False when a process is gone.
  bool meet() {
    const long wanted = ++meetings * ranks;
    for (shared->arrivals.fetch_add(1); shared->arrivals.load() < wanted;) {
      for (int i = 0; i < ranks; ++i) {
        const int process = shared->processes[i].load();
        if (process != 0 && ::kill(process, 0) != 0) return false;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    return true;
  }
};

extern "C" {

int ncclGetUniqueId(char* id) {
  std::memset(id, 0, 128);
  std::snprintf(id, 128, "/vlm_simulated_nccl_%d", static_cast<int>(::getpid()));
  const int file = ::shm_open(id, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (file < 0) return kSystemError;
  const int code = ::ftruncate(file, sizeof(Shared));
  ::close(file);
  return code == 0 ? kSuccess : kSystemError;
}

struct NcclId {
  char bytes[128];
};

int ncclCommInitRank(Opaque** communicator, int ranks, NcclId id, int rank) {
  const int file = ::shm_open(id.bytes, O_RDWR, 0600);
  if (file < 0 || ranks > kMostRanks) return kSystemError;
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return kSystemError;
  auto* made = new Opaque;
  made->name = id.bytes;
  made->shared = static_cast<Shared*>(memory);
  made->ranks = ranks;
  made->rank = rank;
  made->shared->processes[rank] = static_cast<int>(::getpid());
  *communicator = made;
  if (!made->meet()) return kRemoteError;
  if (rank == 0) ::shm_unlink(id.bytes);
  return kSuccess;
}

int ncclAllReduce(const void* from, void* to, std::size_t count, int, int, Opaque* communicator,
                  void*) {
  simulated_cuda::count_operator("ncclAllReduce");
  Shared& shared = *communicator->shared;
  if (count > kMostFloats) return kSystemError;
  std::memcpy(shared.values[communicator->rank], simulated_cuda::bytes_of(from), 4 * count);
  if (!communicator->meet()) {
    communicator->state = kRemoteError;
    return kSuccess;
  }
  auto* sums = reinterpret_cast<float*>(simulated_cuda::bytes_of(to));
  for (std::size_t i = 0; i < count; ++i) {
    sums[i] = shared.values[0][i];
    for (int rank = 1; rank < communicator->ranks; ++rank) sums[i] += shared.values[rank][i];
  }
  if (!communicator->meet()) communicator->state = kRemoteError;
  return kSuccess;
}

int ncclCommGetAsyncError(Opaque* communicator, int* state) {
  *state = communicator->state;
  return kSuccess;
}

int ncclCommDestroy(Opaque* communicator) {
  ::munmap(communicator->shared, sizeof(Shared));
  delete communicator;
  return kSuccess;
}

int ncclCommAbort(Opaque* communicator) {
  return ncclCommDestroy(communicator);
}

const char* ncclGetErrorString(int code) {
  return code == kRemoteError ? "a process is gone" : "the simulated NCCL failed";
}

}  // extern "C"
