// What one instruction set offers: a table of functions. dispatch.cpp chooses the table.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ldmlr {

// Rows of a tile, a multiple of all row groups (16, 12, 6 and 2). Of 24, 48, 96 and 192 the fastest or
// within 1 % of it, but where products are so fast that fetching the weights counts.
static constexpr int usual_rows = 96;

// The functions of one type of weights.
struct TypedKernels {
    // Draws rows first .. first + rows - 1 of the call, rows <= tile_rows.
    void (*sample_tile)(const SampleParams &, int64_t first, int rows, void *scratch, const Stop &);
    // Bytes of scratch for one tile.
    int64_t (*tile_scratch)(const Denoiser &);
    // Multiply-adds on registers alone; returns the operations done.
    double (*peak)(int64_t iterations);
};

struct Kernels {
    const char *name;
    int panel;      // columns of the widest panel of packed weights (pack.h)
    int tile_rows;  // rows that are drawn together
    // Normals [rows, dim]; nothing beyond dim is written.
    void (*normals)(const NoiseParams &, float *out);
    // One solver step of rows first .. first + rows - 1.
    void (*denoise_step)(const StepParams &, int64_t first, int64_t rows);
    TypedKernels float32;
    TypedKernels bfloat16;  // null where the instruction set has no such product
    TypedKernels int8;      // likewise

    const TypedKernels &of(Dtype weights) const {
        if (weights == Dtype::int8) return int8;
        return weights == Dtype::bfloat16 ? bfloat16 : float32;
    }
};

}  // namespace ldmlr
