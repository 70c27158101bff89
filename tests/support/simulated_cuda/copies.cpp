#include "tests/support/simulated_cuda/copies.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_local_scalar_dense_native.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "tests/support/simulated_cuda/counts.h"
#include "tests/support/simulated_cuda/graph.h"
#include "tests/support/simulated_cuda/host_side.h"
#include "tests/support/simulated_cuda/memory.h"

namespace simulated_cuda {
namespace {

constexpr int kNotYet = 0xEE;

struct LateCopy {
  std::byte* host;  // pinned
  std::vector<std::byte> bytes;
  bool is_upload;
};

struct LateCopies {
  std::mutex mutex;
  std::vector<LateCopy> copies;
};

LateCopies& late_copies() {
  static auto* const all = new LateCopies;
  return *all;
}

void arrive(const LateCopy& copy) {
  if (!copy.is_upload) {
    std::memcpy(copy.host, copy.bytes.data(), copy.bytes.size());
  } else if (std::memcmp(copy.host, copy.bytes.data(), copy.bytes.size()) != 0) {
    std::fputs("simulated GPU: host memory was changed while a copy of it was on its way\n",
               stderr);
    std::abort();
  }
}

// Whether bytes can be copied as they lie (as TensorIterator::is_contiguous of both).
bool lies_alike(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  if (a.is_contiguous() && b.is_contiguous()) return true;
  return a.strides() == b.strides() && a.is_non_overlapping_and_dense();
}

// The copy by a kernel of the CPU, uncounted.
void copy_bytes(const at::Tensor& to, const at::Tensor& from) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  HostSide side;
  side.host(to).copy_(side.host(from));
}

void copy_alike(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  refuse_while_recording("a copy between host and device");
  const bool is_upload = to.is_cuda();
  const auto size = static_cast<std::size_t>(from.numel()) * from.itemsize();
  is_upload ? count_upload(from.nbytes()) : count_download(from.nbytes());
  const at::Tensor& on_host = is_upload ? from : to;
  auto* const host = static_cast<std::byte*>(const_cast<void*>(on_host.const_data_ptr()));
  const bool is_late = non_blocking && is_pinned_address(host);
  if (!is_late) {
    if (non_blocking) count_pageable();
    wait_for_device();
    copy_bytes(to, from);
    return;
  }
  LateCopy late{host, std::vector<std::byte>(size), is_upload};
  if (is_upload) {
    copy_bytes(to, from);
    std::memcpy(late.bytes.data(), host, size);
  } else {
    std::memcpy(late.bytes.data(), bytes_of(from.const_data_ptr()), size);
    std::memset(host, kNotYet, size);
  }
  LateCopies& all = late_copies();
  const std::lock_guard lock(all.mutex);
  all.copies.push_back(std::move(late));
}

// With temporaries, as CUDA does: types change on the host when the copy blocks, else on the
// device.
void copy_unlike(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  const bool changes_first = from.is_cuda() == non_blocking;
  at::Tensor target, source;
  if (changes_first) {
    target = to.is_contiguous() ? to : at::empty_like(to, at::MemoryFormat::Contiguous);
    source = from.to(to.scalar_type()).expand_as(to).contiguous();
  } else {
    const bool is_plain = to.is_contiguous() && to.scalar_type() == from.scalar_type();
    target = is_plain ? to
                      : at::empty_like(to, to.options().dtype(from.scalar_type()),
                                       at::MemoryFormat::Contiguous);
    source = from.expand_as(to).contiguous();
  }
  target.copy_(source, non_blocking);
  if (!target.is_same(to)) to.copy_(target, non_blocking);
}

}  // namespace

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (to.is_same(from) || to.numel() == 0) return to;
  if (to.is_cuda() && from.is_cuda()) {
    count_operator("copy_");
    note_write(to);
    copy_bytes(to, from);
    if (is_recording()) {
      record([a = Place(to), b = Place(from)] { copy_bytes(a.tensor(), b.tensor()); });
    }
  } else if (lies_alike(to, from)) {
    copy_alike(to, from, non_blocking);
  } else {
    copy_unlike(to, from, non_blocking);
  }
  return to;
}

at::Scalar read_value(const at::Tensor& value) {
  count_download(static_cast<std::int64_t>(value.itemsize()));
  wait_for_device();
  HostSide side;
  return at::native::_local_scalar_dense_cpu(side.host(value));
}

void wait_for_device() {
  refuse_while_recording("a wait");
  count_wait();
  end_copies();
}

void end_copies() {
  LateCopies& all = late_copies();
  const std::lock_guard lock(all.mutex);
  for (const LateCopy& copy : all.copies) arrive(copy);
  all.copies.clear();
}

void end_copies_of(const void* begin, std::size_t size) {
  LateCopies& all = late_copies();
  const std::lock_guard lock(all.mutex);
  const auto is_of = [&](const LateCopy& copy) {
    return copy.host >= begin && copy.host < static_cast<const std::byte*>(begin) + size;
  };
  for (const LateCopy& copy : all.copies) {
    if (is_of(copy)) arrive(copy);
  }
  std::erase_if(all.copies, is_of);
}

}  // namespace simulated_cuda
