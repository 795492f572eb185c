// Weights in the order in which the kernels read them.
//
// Columns (outputs) are cut into panels of 64, 32 and 16 (64-column instruction sets) or of 16,
// one after the other. Within a panel: for each input k all its columns (float32), or for each
// pair of inputs all its columns with the two values side by side (bfloat16).
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

// Packs a float32 matrix [outputs, inputs], C order, for panels of at most `panel` columns.
void pack(const float *matrix, int outputs, int inputs, Dtype dtype, int panel, void *packed);

}  // namespace ldmlr
