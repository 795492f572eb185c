// Weights in the order in which the kernels read them.
//
// Columns (outputs) are cut into panels of 64, 32 and 16 (64-column instruction sets) or of 16,
// one after the other. Within a panel: for each input k all its columns (float32), or for each
// pair (bfloat16) or four (int8) of inputs all its columns with the values side by side.
//
// int8: a column is round(w / s), s = max |w| / 127, its inputs in the order of simd_int8.inc. After
// the weights follow the columns' scales s / factor, float32, and offsets -128 sum(round(w / s)), int32.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ldmlr {

// Width of the next panel when `rest` columns (a multiple of `padding`) remain.
static inline int panel_width(int rest, int panel) {
    if (panel < 64 || rest < 32) return padding;
    return rest < 64 ? 32 : 64;
}

// Bytes of a packed matrix [outputs, inputs].
int64_t packed_size(int outputs, int inputs, Dtype dtype);

// Packs a float32 matrix [outputs, inputs], C order, for panels of at most `panel` columns; `factor`
// is the one that makes its inputs integers (int8 only).
void pack(const float *matrix, int outputs, int inputs, Dtype dtype, int panel, float factor, void *packed);

}  // namespace ldmlr
