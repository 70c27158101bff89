// One function compiled for several instruction sets.
//
// When the program starts, the best version for the machine is chosen. Put VLM_CLONES before a
// function that isn't a template, and VLM_INLINE before the functions that it calls, which would
// otherwise be compiled for the basic instruction set. With other compilers or processors than g++
// on x86-64 there is one version.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VLM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VLM_CLONES
#endif

#define VLM_INLINE __attribute__((always_inline)) inline
