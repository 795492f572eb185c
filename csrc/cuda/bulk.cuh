// The product of warpgroup.cuh fed by the copy engine: one thread issues all copies, the others compute.
//
// A block is two warpgroups that compute, 128 rows each by two wgmma of 64, and a third of which one thread
// copies; that one gives its registers to the others. Per 64 inputs a stage takes two tiles of the left
// operand and one of the weights, each a straight line in memory and in shared memory (operand.cuh,
// pack_swizzled), so that three instructions move the 48 KB that cost 12 copies a thread in warpgroup.cuh.
//
// Two blocks that share their rows are a cluster where the number of column blocks is even: each fetches one
// of the two left tiles and the copy engine writes it to both. A block then reads 16 + 16 KB for 256 x 128 x
// 64 multiply-adds, 1/64 byte each, where warpgroup.cuh reads 1/43.
//
// Every stage has two barriers. `full`: the block's own producer arrives and says how many bytes will come,
// from itself and from its neighbour. `empty`: each computing warp of every block of the cluster arrives, as
// a producer writes to all of them. A warp does so for a stage once the wgmma that read it are complete,
// which is known one step later: one group of wgmma is always under way, as in warpgroup.cuh.
//
// ASSUMPTION: `rows` is a multiple of 256 and all rows are allocated, K is a multiple of 64, the columns are
// one of 16 N and the blocks of columns one of Cluster.
#pragma once

#include "ptx_bulk.cuh"
#include "warpgroup.cuh"

namespace ldmlr::cuda {

constexpr int bulk_rows = warpgroup_rows, bulk_stages = 4, bulk_left_tiles = bulk_rows / tile_rows;
constexpr int bulk_consumers = 256, bulk_threads = bulk_consumers + 128;
// Registers of a thread: 65,536 in all, handed out by eights; a block starts with 168 each.
constexpr int bulk_producer_registers = 24, bulk_consumer_registers = 240;
static_assert(bulk_consumers * bulk_consumer_registers + 128 * bulk_producer_registers <= 168 * bulk_threads);

template <int N>
constexpr int bulk_right_bytes = 16 * N * gemm_row_bytes;
template <int N>
constexpr int bulk_stage_bytes = bulk_left_tiles * tile_bytes + bulk_right_bytes<N>;
template <int N>
constexpr int bulk_shared_bytes = bulk_stages * (bulk_stage_bytes<N> + 16);

// Position in the ring of stages. `parity` is that of the phase in which the stage is filled.
struct Ring {
    int stage = 0;
    uint32_t parity = 0;
    LDMLR_DEVICE void advance() {
        if (++stage == bulk_stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

#ifdef LDMLR_WARPGROUP

LDMLR_DEVICE void barrier_wait(uint64_t *barrier, uint32_t parity) {
    while (!barrier_try(barrier, parity)) {
    }
}

template <int N, int Cluster>
struct BulkStages {
    char *memory;

    LDMLR_DEVICE char *left(int stage) const { return memory + stage * bulk_stage_bytes<N>; }
    LDMLR_DEVICE char *right(int stage) const { return left(stage) + bulk_left_tiles * tile_bytes; }
    LDMLR_DEVICE uint64_t *full(int stage) const {
        return reinterpret_cast<uint64_t *>(memory + bulk_stages * bulk_stage_bytes<N>) + stage;
    }
    LDMLR_DEVICE uint64_t *empty(int stage) const { return full(stage) + bulk_stages; }

    LDMLR_DEVICE void init() const {
        LDMLR_UNROLL
        for (int stage = 0; stage < bulk_stages; ++stage) {
            barrier_init(full(stage), 1);
            barrier_init(empty(stage), bulk_consumers / 32 * Cluster);
        }
        fence_barrier_init();
    }

    // All copies of a block, by one thread.
    LDMLR_DEVICE void produce(const Product &p, int row0, int column0, int steps) const {
        const int rank = static_cast<int>(cluster_rank());
        const char *weights = static_cast<const char *>(p.weights) + int64_t{column0} * gemm_row_bytes;
        const int64_t weights_of_step = int64_t{p.columns} * gemm_row_bytes;
        Ring ring;
        LDMLR_LOOP
        for (int step = 0; step < steps; ++step, ring.advance(), weights += weights_of_step) {
            uint64_t *const filled = full(ring.stage);
            // The phase before the first counts as over: all stages are empty.
            barrier_wait(empty(ring.stage), ring.parity ^ 1);
            barrier_arrive_expect(filled, bulk_stage_bytes<N>);
            copy_bulk(right(ring.stage), weights, bulk_right_bytes<N>, filled);
            LDMLR_UNROLL
            for (int i = 0; i < bulk_left_tiles / Cluster; ++i) {
                const int tile = Cluster == 1 ? i : rank;
                const char *from = p.left_tile(row0 + tile * tile_rows, step);
                char *to = left(ring.stage) + tile * tile_bytes;
                if constexpr (Cluster == 1)
                    copy_bulk(to, from, tile_bytes, filled);
                else
                    copy_bulk_multicast(to, from, tile_bytes, filled, (1 << Cluster) - 1);
            }
        }
    }

    // This warp reads a stage no more.
    LDMLR_DEVICE void release(int stage, int lane) const {
        if (lane < Cluster) barrier_arrive(address_in(static_cast<uint32_t>(lane), empty(stage)));
    }

    // d += the product of 128 rows, from `upper_row` of the block on.
    LDMLR_DEVICE void consume(float (&d)[2][8 * N], int upper_row, int lane, int steps) const {
        Ring ring;
        int before = 0;
        LDMLR_LOOP
        for (int step = 0; step < steps; ++step, ring.advance()) {
            const char *rows = left(ring.stage) + upper_row * gemm_row_bytes;
            const uint64_t upper = matrix_descriptor(rows), lower = matrix_descriptor(rows + tile_bytes / 2);
            const uint64_t weights = matrix_descriptor(right(ring.stage));
            barrier_wait(full(ring.stage), ring.parity);
            warpgroup_fence();
            LDMLR_UNROLL
            for (int k = 0; k < 4; ++k) {  // 16 inputs are 32 bytes, 2 units of the descriptor
                warpgroup_mma(d[0], upper + 2 * k, weights + 2 * k);
                warpgroup_mma(d[1], lower + 2 * k, weights + 2 * k);
            }
            warpgroup_commit();
            warpgroup_wait<1>();
            // The last fills of the ring are not released: no producer waits for it, and the block it
            // would arrive at might have left.
            if (step > 0 && step - 1 + bulk_stages < steps) release(before, lane);
            before = ring.stage;
        }
        warpgroup_wait<0>();
        settled(d[0]), settled(d[1]);
    }
};

#endif

template <int N, int Cluster, class Epilogue>
LDMLR_KERNEL void LDMLR_BOUNDS(bulk_threads, 1)
    bulk_kernel(const Product p, const Model m, const Epilogue epilogue) {
#ifdef LDMLR_WARPGROUP
    static_assert(Cluster == 1 || Cluster == bulk_left_tiles, "a block of a cluster loads one tile");
    const BulkStages<N, Cluster> stages{shared_memory()};
    const int warp = same_in_warp(thread_index() / 32), lane = thread_index() % 32;
    const int row0 = block_y() * bulk_rows, column0 = block_x() * 16 * N;
    const int steps = p.depth / gemm_depth;
    if (thread_index() == 0) stages.init();
    // No block copies to or arrives at a neighbour whose barriers are not there yet.
    cluster_arrive();
    cluster_wait();
    wait_for_previous();
    if (warp >= bulk_consumers / 32) {
        give_registers<bulk_producer_registers>();
        if (thread_index() == bulk_consumers) stages.produce(p, row0, column0, steps);
        cluster_arrive();
    } else {
        take_registers<bulk_consumer_registers>();
        float d[2][8 * N];
        LDMLR_UNROLL
        for (int i = 0; i < 2; ++i) {
            LDMLR_UNROLL
            for (int j = 0; j < 8 * N; ++j) d[i][j] = 0.0f;
        }
        const int upper_row = warp / 4 * tile_rows;
        stages.consume(d, upper_row, lane, steps);
        cluster_arrive();
        WarpgroupTile<N> c(d);
        epilogue(m, c, row0 + upper_row + warp % 4 * 16, column0, Lane(lane));
    }
    // A block stays as long as its neighbour may still arrive at its barriers; all copies to it were waited
    // for.
    cluster_wait();
#endif
}

}  // namespace ldmlr::cuda
