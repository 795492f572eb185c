// The product of gemm.cuh by wgmma, for sm_90a: both operands come from shared memory, asynchronously.
//
// A block of two warpgroups computes 256 rows by 16 N columns, each 128 rows as two wgmma of 64; inputs go by
// in steps of 64 through four stages (192 KB at N = 8, one block to a multiprocessor). The large tile is for
// the second-level cache: 256 by 128 reads 1/43 byte per multiply-add, 128 by 128 would read 1/32. One group
// of wgmma is always under way: a step waits for the one before only once its own is issued.
//
// Rows of 64 inputs are 128 bytes, 16-byte parts swizzled by row % 8, which is what the descriptors say.
// Both operands lie in memory as the image of shared memory (operand.cuh; pack_swizzled in
// ldmlr/sampler/cuda/packing.py), so their copies are straight lines.
//
// ASSUMPTION: `rows` is a multiple of 256 and all rows are allocated, K is a multiple of 64 and the columns
// are one of 16 N.
#pragma once

#include "gemm.cuh"

namespace ldmlr::cuda {

constexpr int warpgroup_rows = 256, warpgroup_stages = 4, warpgroup_threads = 256;
constexpr int warpgroup_left_bytes = warpgroup_rows * gemm_row_bytes;

// The part of one warp: of the 128 rows of its warpgroup, 16 of the first 64 and 16 of the last.
template <int Columns>
struct WarpgroupTile {
    static constexpr int M = 2, N = Columns;
    Group v[M][N];
    // From the accumulators of two wgmma.
    LDMLR_DEVICE explicit WarpgroupTile(const float (&d)[M][8 * N]) {
        LDMLR_UNROLL
        for (int i = 0; i < M; ++i) {
            LDMLR_UNROLL
            for (int n = 0; n < N; ++n) {
                LDMLR_UNROLL
                for (int e = 0; e < 8; ++e) v[i][n].v[e / 2 % 2][e / 4 * 2 + e % 2] = d[i][8 * n + e];
            }
        }
    }
    LDMLR_DEVICE static constexpr int row(int i) { return 64 * i; }
};

template <int N>
struct WarpgroupLoader {
    static constexpr int right_bytes = 16 * N * gemm_row_bytes;
    static constexpr int stage_bytes = warpgroup_left_bytes + right_bytes;
    const Product &p;
    char *memory;
    int row0, column0;

    LDMLR_DEVICE void load(int step, int stage) const {
        char *left = memory + stage * stage_bytes, *right = left + warpgroup_left_bytes;
        LDMLR_UNROLL
        for (int tile = 0; tile < warpgroup_rows / tile_rows; ++tile) {
            const char *from = p.left_tile(row0 + tile * tile_rows, step);
            LDMLR_UNROLL
            for (int i = 0; i < tile_bytes / 16 / warpgroup_threads; ++i) {
                const int at = (i * warpgroup_threads + thread_index()) * 16;
                copy_async(left + tile * tile_bytes + at, from + at);
            }
        }
        const char *weights = static_cast<const char *>(p.weights) +
                              (static_cast<int64_t>(step) * p.columns + column0) * gemm_row_bytes;
        LDMLR_UNROLL
        for (int i = 0; i < right_bytes / 16 / warpgroup_threads; ++i) {
            const int at = (i * warpgroup_threads + thread_index()) * 16;
            copy_async(right + at, weights + at);
        }
    }
};

template <int N>
constexpr int warpgroup_shared_bytes = warpgroup_stages * WarpgroupLoader<N>::stage_bytes;

template <int N, class Epilogue>
LDMLR_KERNEL void LDMLR_BOUNDS(warpgroup_threads, 1)
    warpgroup_kernel(const Product p, const Model m, const Epilogue epilogue) {
#ifdef LDMLR_WARPGROUP
    using Loader = WarpgroupLoader<N>;
    char *memory = shared_memory();
    const int warp = thread_index() / 32, lane = thread_index() % 32;
    const int row0 = block_y() * warpgroup_rows, column0 = block_x() * 16 * N;
    const Loader loader{p, memory, row0, column0};
    const int steps = p.depth / gemm_depth;
    wait_for_previous();
    LDMLR_UNROLL
    for (int i = 0; i < warpgroup_stages - 2; ++i) {
        if (i < steps) loader.load(i, i);
        copy_commit();
    }
    float d[2][8 * N];
    LDMLR_UNROLL
    for (int i = 0; i < 2; ++i) {
        LDMLR_UNROLL
        for (int j = 0; j < 8 * N; ++j) d[i][j] = 0.0f;
    }
    int stage = 0, next = warpgroup_stages - 2;
    const int upper_row = warp / 4 * 128;
    LDMLR_LOOP
    for (int step = 0; step < steps; ++step) {
        copy_wait<warpgroup_stages - 3>();
        fence_async();
        // The stage is there for all, and all products but those of the step before are done.
        sync_block();
        const char *left = memory + stage * Loader::stage_bytes;
        const uint64_t upper = matrix_descriptor(left + upper_row * gemm_row_bytes);
        const uint64_t lower = matrix_descriptor(left + (upper_row + 64) * gemm_row_bytes);
        const uint64_t right = matrix_descriptor(left + warpgroup_left_bytes);
        warpgroup_fence();
        LDMLR_UNROLL
        for (int k = 0; k < 4; ++k) {  // 16 inputs are 32 bytes, 2 units of the descriptor
            warpgroup_mma(d[0], upper + 2 * k, right + 2 * k);
            warpgroup_mma(d[1], lower + 2 * k, right + 2 * k);
        }
        warpgroup_commit();
        // Into the stage of two steps before.
        if (step + warpgroup_stages - 2 < steps) loader.load(step + warpgroup_stages - 2, next);
        copy_commit();
        warpgroup_wait<1>();
        stage = stage + 1 == warpgroup_stages ? 0 : stage + 1;
        next = next + 1 == warpgroup_stages ? 0 : next + 1;
    }
    warpgroup_wait<0>();
    settled(d[0]), settled(d[1]);
    copy_wait<0>();
    WarpgroupTile<N> c(d);
    epilogue(m, c, row0 + upper_row + warp % 4 * 16, column0, Lane(lane));
#endif
}

}  // namespace ldmlr::cuda
