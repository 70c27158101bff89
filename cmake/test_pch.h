// Precompiled for the tests of folders that use LibTorch.
#pragma once

#include "cmake/torch_pch.h"
#include "tests/support/catch.h"
