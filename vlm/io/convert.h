// Mapped tensors of a file → tensors of another dtype, all of them in one parallel pass.
//
//   {from: view of a mapping, to: empty tensor of the same shape} × many ─► every `to` filled
//
// The pass is over equal pieces, not over tensors, so that threads end together whatever the sizes.
// A piece's pages of the file are given back as soon as it is converted: what stays in memory is
// the result and a few pieces. CPU only.
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

// Takes the whole pages of a mapped tensor out of this process's memory.
void drop_pages(const at::Tensor& mapped);

// The same for pages that still are as their file has them, of any tensors; those that were
// written, and those of no file, stay. Does nothing where the system doesn't say which is which.
void drop_unchanged_pages(const NamedTensors& tensors);

// An empty CPU tensor for weights; in huge pages where the system has them, which makes filling and
// reading large ones cheaper.
at::Tensor empty_weight(at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace vlm
