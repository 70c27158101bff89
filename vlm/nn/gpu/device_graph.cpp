#include "vlm/nn/gpu/device_graph.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstddef>
#include <exception>
#include <utility>

#include "vlm/core/error.h"

namespace vlm {
namespace {

// Members of at::cuda::CUDAGraph as their library exports them; `self` comes first.
struct Members {
  void (*construct)(void* self, bool keep_graph) = nullptr;
  void (*destroy)(void* self) = nullptr;
  void (*begin)(void* self, std::pair<unsigned long long, unsigned long long> pool,
                int mode) = nullptr;
  void (*end)(void* self) = nullptr;
  void (*replay)(void* self) = nullptr;

  bool are_there() const { return construct && destroy && begin && end && replay; }
};

// Takes the place of a CUDAGraph, which has about 150 bytes.
struct alignas(std::max_align_t) GraphBytes {
  std::byte bytes[1024];
};

// Other threads may use the device meanwhile: the operators of a capture are those of its thread.
constexpr int kThreadLocalCapture = 1;

template <typename Function>
void look_up(const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
}

const Members& members() {
  static const Members found = [] {
    Members all;
    look_up("_ZN2at4cuda9CUDAGraphC1Eb", all.construct);
    look_up("_ZN2at4cuda9CUDAGraphD1Ev", all.destroy);
    look_up("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode", all.begin);
    look_up("_ZN2at4cuda9CUDAGraph11capture_endEv", all.end);
    look_up("_ZN2at4cuda9CUDAGraph6replayEv", all.replay);
    return all;
  }();
  return found;
}

// CUDA records no default stream, so another one is the current one for a while. What was asked of
// the former comes first.
class OtherStream {
 public:
  explicit OtherStream(c10::Device device)
      : devices_(device.type()),
        former_(devices_.exchangeStream(devices_.getStreamFromGlobalPool(device))) {
    const c10::Stream other = devices_.getStream(device);
    c10::Event asked(device.type());
    asked.record(former_);
    asked.block(other);
  }
  ~OtherStream() { devices_.exchangeStream(former_); }
  OtherStream(const OtherStream&) = delete;
  OtherStream& operator=(const OtherStream&) = delete;

 private:
  c10::impl::VirtualGuardImpl devices_;
  c10::Stream former_;
};

}  // namespace

std::string why_no_graphs(c10::Device device) {
  if (!device.is_cuda()) return "device " + device.str();
  return members().are_there() ? "" : "a LibTorch whose CUDA part isn't that of 2.11";
}

void DeviceGraph::Deleter::operator()(void* graph) const {
  members().destroy(graph);
  delete static_cast<GraphBytes*>(graph);
}

DeviceGraph::DeviceGraph(c10::Device device) : device_(device) {
  if (std::string reason = why_no_graphs(device); !reason.empty()) {
    throw Error({.what = "the GPU's work can't be recorded", .got = std::move(reason)});
  }
  auto bytes = std::make_unique<GraphBytes>();
  members().construct(bytes.get(), /*keep_graph=*/false);
  graph_.reset(bytes.release());
}

void DeviceGraph::capture(const std::function<void()>& work) {
  const OtherStream other(device_);
  members().begin(graph_.get(), {0, 0}, kThreadLocalCapture);
  try {
    work();
  } catch (...) {
    try {
      members().end(graph_.get());
    } catch (const std::exception&) {  // that the capture failed is known
    }
    throw;
  }
  members().end(graph_.get());
}

void DeviceGraph::replay() {
  members().replay(graph_.get());
}

}  // namespace vlm
