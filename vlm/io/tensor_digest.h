// Digests of tensors, as parts of the keys of caches.
//
//   tensor ─► digest_tensor ─► 32 hex digits of dtype, shape and bytes
//
// The hash is XXH3-128: as fast as memory is read, so that every weight of a vision tower can be
// hashed (a sample of them would not tell a fine-tuned tower from its base). Equal digests of
// different tensors don't happen by accident (one pair in 2^64 tensors). It is no cryptographic
// hash: someone can make two pictures on purpose that share a key. Downloads, which are trusted by
// their hash, use SHA-256.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "vlm/io/safetensors.h"

namespace vlm {

// Of dtype, shape and values in row-major order, wherever the tensor lies. An undefined tensor has
// a digest of its own.
std::string digest_tensor(const at::Tensor& tensor);

// Of names and tensors in the order given; for the weights of a model's part. Hashes on all
// threads; 400M float32 weights take about as long as reading 1.6 GB from memory, so callers ask
// when a key is first needed, and once.
std::string digest_tensors(const NamedTensors& tensors);

}  // namespace vlm
