// Mapped tensors of a file → tensors of another dtype, all of them in one parallel pass.
//
//   {from: view of a mapping, to: empty tensor of the same shape} × many ─► every `to` filled
//
// The work is cut into pieces of equal size, so that all threads are busy whatever the sizes of the
// tensors. The file's pages of a piece are dropped as soon as it is converted: only the result and
// a few pieces are in memory. CPU only.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "vlm/io/safetensors.h"

namespace vlm {

struct Conversion {
  at::Tensor from;  // contiguous, unchanged since the file was mapped
  at::Tensor to;    // contiguous
};

// Fills every `to`. The mapping stays valid: a page that is read again comes from the file again.
void convert_mapped(const std::vector<Conversion>& conversions);

// Drops the memory pages that lie wholly within a mapped tensor; they are read from the file again
// when they are needed.
void drop_pages(const at::Tensor& mapped);

// The same for any tensors, but only for pages that are mapped from a file and unchanged; written
// pages and other memory stay. Does nothing where the system doesn't tell which pages these are.
void drop_unchanged_pages(const NamedTensors& tensors);

// An empty CPU tensor for weights; in huge pages where the system has them, which makes filling and
// reading large ones cheaper.
at::Tensor empty_weight(at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace vlm
