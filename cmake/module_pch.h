// Precompiled for the folders that define LibTorch modules. Apart from torch_pch.h, because whoever
// has torch/nn/module.h precompiled pays for its templates in every file.
#pragma once

#include <torch/nn/module.h>

#include "cmake/torch_pch.h"
