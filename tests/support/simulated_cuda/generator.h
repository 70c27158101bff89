// Random numbers of the device: a seed and an offset, 16 bytes, as CUDA's generator.
//
// Each operator that draws gets a generator of the CPU made of both, then the offset moves on. So
// the two devices' streams stay apart, and a state that is restored gives the same numbers again.
#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>

namespace simulated_cuda {

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  DeviceGenerator();
  static c10::DeviceType device_type() { return c10::kCUDA; }

  void set_current_seed(std::uint64_t seed) override;
  void set_offset(std::uint64_t offset) override { offset_ = offset; }
  std::uint64_t get_offset() const override { return offset_; }
  std::uint64_t current_seed() const override { return seed_; }
  std::uint64_t seed() override;
  void set_state(const c10::TensorImpl& state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;

  // For one operator; moves the offset on. Holds the mutex of the generator meanwhile.
  at::Generator next_for_host();

 private:
  DeviceGenerator* clone_impl() const override;

  std::uint64_t seed_ = c10::default_rng_seed_val;
  std::uint64_t offset_ = 0;
};

// The generator that operators use which are given none.
const at::Generator& default_generator();

// What a kernel of the CPU takes for `generator` (nothing: the default one). Throws for one of
// another device, as CUDA does.
at::Generator to_host_generator(const std::optional<at::Generator>& generator);

}  // namespace simulated_cuda
