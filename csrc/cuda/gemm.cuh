// One layer as one tensor-core product with its epilogue: activations [rows, K] times packed weights.
//
// A block of 128 threads computes 128 rows by 128 columns, each warp 64 by 64 of them; K goes by in steps of
// 64 through three stages of shared memory (96 KB, two blocks to a multiprocessor). Activations lie in memory
// as images of shared memory (operand.cuh) and are read by ldmatrix; weights are in fragment order and
// read by one 16-byte load a block (fragment.cuh). Per 16 inputs a warp reads 4 KB from shared memory for
// 128 products: 2,048 multiply-adds per 128 bytes, what the tensor cores of sm_90 do in the cycle that takes.
//
// ASSUMPTION: `rows` is a multiple of 128 and all rows are allocated; K and N are multiples of 64.
#pragma once

#include "fragment.cuh"
#include "operand.cuh"

namespace ldmlr::cuda {

constexpr int gemm_rows = tile_rows, gemm_columns = 128, gemm_depth = tile_columns;
constexpr int gemm_stages = 3, gemm_threads = 128, gemm_row_bytes = gemm_depth * 2;
constexpr int gemm_left_bytes = gemm_rows * gemm_row_bytes;
constexpr int gemm_stage_bytes = gemm_left_bytes + gemm_columns * gemm_row_bytes;
constexpr int gemm_shared_bytes = gemm_stages * gemm_stage_bytes;

struct Product {
    const uint16_t *left;  // [rows, width], an operand
    int width;
    const void *weights;  // [N / 16][K / 16] blocks
    int depth, columns;   // K, N
    // Input k of the weights is column k of `left`, or k - width from there on.
    LDMLR_DEVICE const char *left_tile(int row, int step) const {
        const int k = step * tile_columns;
        return reinterpret_cast<const char *>(left + operand_at(row, k < width ? k : k - width, width));
    }
};

// The part of one warp: rows in two halves of 32 that lie 64 apart (epilogues.cuh says why), 64 columns.
struct MmaTile {
    static constexpr int M = 4, N = 4;
    Group v[M][N];
    LDMLR_DEVICE static constexpr int row(int i) { return i % 2 * 16 + i / 2 * 64; }
};

struct GemmLoader {
    const Product &p;
    char *memory;
    int row0, group0;  // first row; first group of 16 columns

    // Copies inputs 64 step .. of the block's rows and columns into a stage.
    LDMLR_DEVICE void load(int step, int stage) const {
        char *left = memory + stage * gemm_stage_bytes, *right = left + gemm_left_bytes;
        const int groups = p.columns / 16, blocks = p.depth / 16;
        const char *tile = p.left_tile(row0, step);
        LDMLR_UNROLL
        for (int i = 0; i < gemm_left_bytes / 16 / gemm_threads; ++i) {
            const int at = (i * gemm_threads + thread_index()) * 16;
            copy_async(left + at, tile + at);
        }
        const uint4 *weights = static_cast<const uint4 *>(p.weights);
        LDMLR_UNROLL
        for (int i = 0; i < gemm_columns * 8 / gemm_threads; ++i) {
            const int piece = i * gemm_threads + thread_index(), group = piece / 128, part = piece % 128;
            // The last columns may be no whole block; what is computed there is not used.
            const int64_t from = static_cast<int64_t>(group0 + group < groups ? group0 + group : groups - 1) *
                                     blocks * block_words +
                                 step * 4 * block_words + part;
            copy_async(right + piece * 16, weights + from);
        }
    }
};

template <class Epilogue>
LDMLR_KERNEL void LDMLR_BOUNDS(gemm_threads, 2)
    gemm_kernel(const Product p, const Model m, const Epilogue epilogue) {
    char *memory = shared_memory();
    const int warp = thread_index() / 32, lane = thread_index() % 32;
    const int row0 = block_y() * gemm_rows, column0 = block_x() * gemm_columns;
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 64;
    const GemmLoader loader{p, memory, row0, column0 / 16};
    const int steps = p.depth / gemm_depth;
    LDMLR_UNROLL
    for (int i = 0; i < gemm_stages - 1; ++i) {
        if (i < steps) loader.load(i, i);
        copy_commit();
    }
    MmaTile c;
    LDMLR_UNROLL
    for (int i = 0; i < 4; ++i) LDMLR_UNROLL
    for (int n = 0; n < 4; ++n) fill(c.v[i][n], {0.0f, 0.0f, 0.0f, 0.0f});
    int stage = 0, next = gemm_stages - 1;
    LDMLR_LOOP
    for (int step = 0; step < steps; ++step) {
        copy_wait<gemm_stages - 2>();
        sync_block();
        if (step + gemm_stages - 1 < steps) loader.load(step + gemm_stages - 1, next);
        copy_commit();
        const char *left = memory + stage * gemm_stage_bytes;
        const uint4 *right = reinterpret_cast<const uint4 *>(left + gemm_left_bytes) + lane;
        LDMLR_UNROLL
        for (int k = 0; k < 4; ++k) {
            Operand a[4];
            LDMLR_UNROLL
            for (int i = 0; i < 4; ++i) {
                const int row = warp_row + MmaTile::row(i) + lane % 16, part = 2 * k + lane / 16;
                load_matrices(a[i].r, left + row * gemm_row_bytes + (part ^ (row & 7)) * 16);
            }
            LDMLR_UNROLL
            for (int n = 0; n < 4; ++n) {
                const uint4 b = right[((warp_column / 16 + n) * 4 + k) * block_words];
                LDMLR_UNROLL
                for (int i = 0; i < 4; ++i) product(c.v[i][n], a[i], b);
            }
        }
        stage = stage + 1 == gemm_stages ? 0 : stage + 1;
        next = next + 1 == gemm_stages ? 0 : next + 1;
    }
    copy_wait<0>();
    if (column0 + warp_column < p.columns) epilogue(m, c, row0 + warp_row, column0 + warp_column, Lane(lane));
}

}  // namespace ldmlr::cuda
