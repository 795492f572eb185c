// What every instruction-set file includes first, and all it includes.
//
// An inline or template function with external linkage that is compiled here could be the copy
// the linker keeps for the whole library, and crash older processors. So the only system headers
// are the two below, our own headers hold plain data and functions with internal linkage, and
// the kernels (.inc) are in anonymous namespaces.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../params.h"
#include "../philox.h"
#include "kernels.h"
#include "pack.h"

#define LDMLR_INLINE static inline __attribute__((always_inline))
#define LDMLR_METHOD inline __attribute__((always_inline))
