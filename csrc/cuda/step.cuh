// Elementwise kernels on plain arrays: the solver step for a denoiser that lives elsewhere, and normals.
//
// A thread does four adjacent values of a row, a block of the counter noise. Rows that do not start
// at a multiple of 16 bytes are read value by value.
#pragma once

#include "fragment.cuh"
#include "launch.cuh"

namespace ldmlr::cuda {

constexpr int step_threads = 256;

struct FourOf {
    int64_t row;
    int block;
    LDMLR_DEVICE FourOf(int64_t item, int64_t dim) {
        const int64_t blocks = (dim + 3) / 4;
        row = item / blocks;
        block = static_cast<int>(item % blocks);
    }
};

LDMLR_DEVICE int64_t item_of_thread() {
    return static_cast<int64_t>(block_x()) * step_threads + thread_index();
}

// x, x0 and f as in StepParams.
LDMLR_KERNEL void LDMLR_BOUNDS(step_threads, 1) step_kernel(const StepParams p, const bool vectors) {
    const FourOf four(item_of_thread(), p.dim);
    if (four.row >= p.rows) return;
    float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const int dim = static_cast<int>(p.dim);
    if (p.row.s != 0.0f)
        normals4(p.seed, p.first_row + static_cast<uint64_t>(four.row), four.block, dim, solver_stream,
                 p.step, z);
    const int64_t at = four.row * p.dim + 4 * four.block;
    if (vectors) {
        const float4 x = vector_at(p.x + at), f = vector_at(p.f + at), before = vector_at(p.x0 + at);
        float x0[4] = {before.x, before.y, before.z, before.w};
        const float next[4] = {
            solver_step(p.row, x.x, f.x, z[0], x0[0]), solver_step(p.row, x.y, f.y, z[1], x0[1]),
            solver_step(p.row, x.z, f.z, z[2], x0[2]), solver_step(p.row, x.w, f.w, z[3], x0[3])};
        *reinterpret_cast<float4 *>(p.x + at) = as_float4(next);
        *reinterpret_cast<float4 *>(p.x0 + at) = as_float4(x0);
        return;
    }
    LDMLR_UNROLL
    for (int i = 0; i < 4; ++i) {
        if (4 * four.block + i >= dim) break;
        float x0 = p.x0[at + i];
        p.x[at + i] = solver_step(p.row, p.x[at + i], p.f[at + i], z[i], x0);
        p.x0[at + i] = x0;
    }
}

// Normals [rows, dim], as the CPU's to the bit.
LDMLR_KERNEL void LDMLR_BOUNDS(step_threads, 1) normals_kernel(const NoiseParams p, float *out) {
    const FourOf four(item_of_thread(), p.dim);
    if (four.row >= p.rows) return;
    float z[4];
    const int dim = static_cast<int>(p.dim);
    normals4(p.seed, p.first_row + static_cast<uint64_t>(four.row), four.block, dim, p.stream, p.step, z);
    LDMLR_UNROLL
    for (int i = 0; i < 4; ++i)
        if (4 * four.block + i < dim) out[four.row * p.stride + 4 * four.block + i] = z[i];
}

inline Grid grid_of(int64_t rows, int64_t dim) {
    return {static_cast<int>((rows * ((dim + 3) / 4) + step_threads - 1) / step_threads), 1};
}

inline void denoise_step(const StepParams &p, Stream stream) {
    auto aligned = [](const void *address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; };
    const bool vectors = p.dim % 4 == 0 && aligned(p.x) && aligned(p.x0) && aligned(p.f);
    launch(step_kernel, grid_of(p.rows, p.dim), step_threads, 0, stream, p, vectors);
}

inline void normals(const NoiseParams &p, float *out, Stream stream) {
    launch(normals_kernel, grid_of(p.rows, p.dim), step_threads, 0, stream, p, out);
}

}  // namespace ldmlr::cuda
