// One body of code compiled for several instruction sets.
//
// The loader takes the best that the machine has, so one program is quick everywhere. VLM_CLONES
// goes before a function that isn't a template; what that function calls is VLM_INLINE, or it would
// be compiled for the plain instruction set. Elsewhere than g++ on x86-64 there is one version.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VLM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VLM_CLONES
#endif

#define VLM_INLINE __attribute__((always_inline)) inline
