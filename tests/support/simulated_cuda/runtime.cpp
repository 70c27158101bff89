// What LibTorch asks of a device beside operators: that it is there, its streams and events, its
// generators. Registered before main, as LibTorch keeps its first answers.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <atomic>

#include "tests/support/simulated_cuda/copies.h"
#include "tests/support/simulated_cuda/generator.h"
#include "tests/support/simulated_cuda/memory.h"

namespace simulated_cuda {
namespace {

constexpr c10::DeviceIndex kDevices = 1;
thread_local c10::StreamId current_stream = 0;

void check_index(c10::DeviceIndex index) {
  TORCH_CHECK(index >= -1 && index < kDevices, "CUDA error: invalid device ordinal ",
              static_cast<int>(index));
}

class DeviceGuard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  c10::Device getDevice() const override { return {c10::kCUDA, 0}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    check_index(device.index());
    return getDevice();
  }
  void setDevice(c10::Device device) const override { check_index(device.index()); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}

  c10::Stream getStream(c10::Device device) const override {
    return stream(device, current_stream);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    static std::atomic<c10::StreamId> last{0};
    return stream(device, ++last);
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = getStream(next.device());
    current_stream = next.id();
    return before;
  }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
  bool queryStream(const c10::Stream&) const override { return end_copies(), true; }
  void synchronizeStream(const c10::Stream&) const override { wait_for_device(); }
  void synchronizeDevice(c10::DeviceIndex) const override { wait_for_device(); }

  void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) *event = new char;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return end_copies(), true; }
  void synchronizeEvent(void*) const override { wait_for_device(); }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<char*>(event);
  }

 private:
  static c10::Stream stream(c10::Device device, c10::StreamId id) {
    const c10::Device own(c10::kCUDA, std::max<c10::DeviceIndex>(device.index(), 0));
    return c10::Stream(c10::Stream::UNSAFE, own, id);
  }
};
C10_REGISTER_GUARD_IMPL(CUDA, DeviceGuard)

}  // namespace

class DeviceHooks final : public at::CUDAHooksInterface {
 public:
  explicit DeviceHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  int getNumGPUs() const override { return kDevices; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex index) const override { check_index(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return check_index(index), c10::DeviceIndex{0};
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return check_index(index), default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<DeviceGenerator>();
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  c10::Allocator* getCUDADeviceAllocator() const override { return device_allocator(); }
  bool isPinnedPtr(const void* address) const override { return is_pinned_address(address); }
  c10::Device getDeviceFromPtr(void*) const override { return {c10::kCUDA, 0}; }
  void deviceSynchronize(c10::DeviceIndex) const override { wait_for_device(); }
  std::string showConfig() const override { return "a simulated GPU\n"; }
};

}  // namespace simulated_cuda

namespace at {
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", ::simulated_cuda::DeviceHooks)
}
