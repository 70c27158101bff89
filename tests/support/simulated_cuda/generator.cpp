#include "tests/support/simulated_cuda/generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>

namespace simulated_cuda {
namespace {

constexpr std::uint64_t kStep = 4;  // CUDA's offset moves in fours
constexpr std::int64_t kStateBytes = 16;

// 64 bits in which every bit of the input counts (the finalizer of MurmurHash3).
std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 33)) * 0xff51afd7ed558ccdULL;
  bits = (bits ^ (bits >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return bits ^ (bits >> 33);
}

}  // namespace

DeviceGenerator::DeviceGenerator()
    : GeneratorImpl(c10::Device(c10::kCUDA, 0), c10::DispatchKeySet(c10::DispatchKey::CUDA)) {}

void DeviceGenerator::set_current_seed(std::uint64_t seed) {
  seed_ = seed;
  offset_ = 0;
}

std::uint64_t DeviceGenerator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom());
  return seed_;
}

void DeviceGenerator::set_state(const c10::TensorImpl& state) {
  TORCH_CHECK(state.device().is_cpu() && state.dtype() == caffe2::TypeMeta::Make<std::uint8_t>() &&
                  state.numel() == kStateBytes && state.is_contiguous(),
              "RNG state of a GPU must be 16 bytes on the CPU");
  const auto* const bytes = static_cast<const std::uint8_t*>(state.data());
  std::memcpy(&seed_, bytes, sizeof(seed_));
  std::memcpy(&offset_, bytes + sizeof(seed_), sizeof(offset_));
}

c10::intrusive_ptr<c10::TensorImpl> DeviceGenerator::get_state() const {
  const at::Tensor state = at::empty({kStateBytes}, at::kByte);
  auto* const bytes = state.mutable_data_ptr<std::uint8_t>();
  std::memcpy(bytes, &seed_, sizeof(seed_));
  std::memcpy(bytes + sizeof(seed_), &offset_, sizeof(offset_));
  return state.getIntrusivePtr();
}

at::Generator DeviceGenerator::next_for_host() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t seed = mix(mix(seed_ + 1) ^ offset_);
  offset_ += kStep;
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

DeviceGenerator* DeviceGenerator::clone_impl() const {
  auto* const clone = new DeviceGenerator;
  clone->seed_ = seed_;
  clone->offset_ = offset_;
  return clone;
}

const at::Generator& default_generator() {
  static const auto* const generator =
      new at::Generator(at::make_generator<DeviceGenerator>());  // outlives the program's tensors
  return *generator;
}

at::Generator to_host_generator(const std::optional<at::Generator>& generator) {
  const at::Generator& own = generator && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(own.device().is_cuda(), "Expected a 'cuda' device type for generator but found '",
              own.device().type(), "'");
  return own.get<DeviceGenerator>()->next_for_host();
}

}  // namespace simulated_cuda
