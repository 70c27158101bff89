// Runs a few short passes of the real model to measure what a step of a given size takes.
//
//   model + optimizer ─► probe ─► StepCost: bytes and seconds of tokens, labels and tiles
//
// Attention is computed in pieces, so memory and time are close to linear in the tokens of a batch,
// and two lengths are measured. Labels add memory only up to a chunk of the head
// (train/model/loss.h). A probe may change weights, so don't train its model afterwards.
#pragma once

#include <cstdint>

#include "train/model/trained_model.h"
#include "train/optimizer/optimizer.h"

namespace vlm::train {

// A line through two measurements.
struct Line {
  double at_zero = 0, slope = 0;
  double at(double x) const { return at_zero + slope * x; }
};

struct StepCost {
  // Of tensors of a batch, by tokens, with `labels` labels: the peak of forward, what is kept of it
  // for backward, and what backward takes beside that or the gradients, whichever is more.
  Line forward_bytes, kept_bytes, backward_bytes;
  double bytes_per_label = 0;  // of forward, for more labels, up to a chunk of the head
  std::int64_t labels = 0;
  double gradient_bytes = 0;
  double tile_bytes = 0;     // at the peak of encoding one picture; if it is kept, of one unit
  bool keeps_tiles = false;  // pictures are trained: every tile's activations stay until backward
  Line seconds;              // of a batch's forward and backward, by tokens
  double tile_seconds = 0;   // of a unit (Pixels::units)
  double optimizer_seconds = 0;
  double process_mb = 0;  // peak of the process while `probe_tokens` were probed
  double probe_tokens = 0;

  // Bytes of tensors other than weights and optimizer state, for a batch of this size.
  double batch_bytes(double tokens, double batch_labels, double tiles) const;
};

struct ProbeOptions {
  std::int64_t tokens = 128;  // of the longer pass; the shorter one has half
  Pixels picture = {};        // empty: pictures aren't looked at
};

StepCost probe(TrainedModel& trained, Optimizer& optimizer, const ProbeOptions& options);

}  // namespace vlm::train
