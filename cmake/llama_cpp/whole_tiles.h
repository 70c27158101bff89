// Included before every C++ file of llama.cpp, where scripts/setup builds it with GCC on a processor with AMX. GCC's own
// functions (seen in 12) say that a configuration of tiles is 8 bytes and that loading a tile reads no memory, so what
// is written before may come behind them: llama.cpp then ends with an illegal instruction on Q8_0 and Q4_0.
#pragma once

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(config)))
#define _tile_storeconfig(config) __asm__ volatile("sttilecfg %0" : "=m"(*(char(*)[64])(config)))
#undef _tile_loadd_internal
#define _tile_loadd_internal(dst, base, stride)                   \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #dst              \
                   ::"r"((const void*)(base)), "r"((long)(stride)) \
                   : "memory")
#endif
