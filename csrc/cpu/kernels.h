// What one instruction set offers: a table of functions. dispatch.cpp chooses the table.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ldmlr {

constexpr int tile_rows = 48;  // a multiple of all row groups (12, 6 and 2)

// Draws rows first .. first + rows - 1 of the call, rows <= tile_rows.
using SampleTile = void (*)(const SampleParams &, int64_t first, int rows, void *scratch, const Stop &);
// Bytes of scratch for one tile.
using TileScratch = int64_t (*)(const Denoiser &);

struct Kernels {
    const char *name;
    int panel;  // columns of the widest panel of packed weights (pack.h)
    // Normals [rows, dim]; nothing beyond dim is written.
    void (*normals)(const NoiseParams &, float *out);
    // One solver step of rows first .. first + rows - 1.
    void (*denoise_step)(const StepParams &, int64_t first, int64_t rows);
    SampleTile sample_float32;
    TileScratch scratch_float32;
    SampleTile sample_bfloat16;  // null where the instruction set has no bfloat16 product
    TileScratch scratch_bfloat16;
};

}  // namespace ldmlr
