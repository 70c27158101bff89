// The kinds of GELU that encoders have.
#pragma once

namespace vlm {

enum class Gelu {
  kErf,    // "gelu": x Φ(x), Φ by the error function
  kTanh,   // "gelu_pytorch_tanh": the same with Φ by tanh
  kQuick,  // "quick_gelu": x sigmoid(1.702 x)
};

}  // namespace vlm
