// Where the fused tiers read their weights from: the stream of fused.cuh in chunks, in one fixed order.
#pragma once

#include "fragment.cuh"

namespace ldmlr::cuda {

constexpr int fused_warps = 8;
constexpr int fused_threads = 32 * fused_warps;

// Sizes of one shape in weight blocks; DT = D' / 16, HT = H' / 16. W_in and W_out come in pieces of the size
// of the other chunks: 2 H' / D' groups of 16 outputs of W_in, two of W_out.
template <int DT, int HT>
struct Shape {
    static_assert(DT % 2 == 0 && DT <= HT && 2 * HT % DT == 0, "pieces are whole groups");
    static constexpr int first = DT + HT, pair = 2 * HT;  // blocks of a chunk, at most `pair`
    static constexpr int pieces = DT / 2, input_groups = 2 * HT / DT, output_groups = 2;
    LDMLR_BOTH static constexpr int64_t blocks(int layers) {
        return 2 * DT * HT + HT * (first + (layers - 1) * pair);
    }
    LDMLR_BOTH static constexpr int chunks(int layers) { return 2 * pieces + HT * layers; }
    LDMLR_BOTH static constexpr int chunk_blocks(int chunk) {
        return chunk >= pieces && chunk < pieces + HT ? first : pair;
    }
};

// The whole stream in shared memory.
template <int DT, int HT>
struct Resident {
    static constexpr bool block_wide = false;  // warps may have different numbers of rows to do
    const uint4 *start, *next;

    LDMLR_DEVICE Resident(const Model &m, char *memory) {
        uint4 *to = reinterpret_cast<uint4 *>(memory);
        const uint4 *from = static_cast<const uint4 *>(m.input);
        const int words = static_cast<int>(Shape<DT, HT>::blocks(m.layers)) * block_words;
        for (int i = thread_index(); i < words; i += fused_threads) copy_async(to + i, from + i);
        copy_commit();
        copy_wait<0>();
        sync_block();
        start = next = to;
    }
    LDMLR_DEVICE const uint4 *chunk(int blocks) {
        const uint4 *found = next;
        next += blocks * block_words;
        return found;
    }
    LDMLR_DEVICE void rewind() { next = start; }
    LDMLR_BOTH static int64_t bytes(int layers) { return Shape<DT, HT>::blocks(layers) * block_words * 16; }
};

// A ring of chunks. ASSUMPTION: all threads of the block ask for the same chunks in the same order.
template <int DT, int HT>
struct Streamed {
    static constexpr bool block_wide = true;
    using S = Shape<DT, HT>;
    // A third slot hides more of the cache's latency; the largest shape has no room for it.
    static constexpr int slots = DT * HT > 64 ? 2 : 3;
    uint4 *ring;
    const uint4 *stream;
    int layers, read_slot, write_slot, write_chunk, write_offset;

    LDMLR_DEVICE Streamed(const Model &m, char *memory)
        : ring(reinterpret_cast<uint4 *>(memory)),
          stream(static_cast<const uint4 *>(m.input)),
          layers(m.layers),
          read_slot(0),
          write_slot(0),
          write_chunk(0),
          write_offset(0) {
        for (int i = 0; i < slots - 1; ++i) fetch();
    }
    // Starts the copy of the next chunk, the first one after the last.
    LDMLR_DEVICE void fetch() {
        const int words = S::chunk_blocks(write_chunk) * block_words;
        uint4 *to = ring + write_slot * S::pair * block_words;
        for (int i = thread_index(); i < words; i += fused_threads)
            copy_async(to + i, stream + write_offset + i);
        copy_commit();
        write_offset += words;
        write_slot = write_slot + 1 == slots ? 0 : write_slot + 1;
        if (++write_chunk == S::chunks(layers)) write_chunk = write_offset = 0;
    }
    LDMLR_DEVICE const uint4 *chunk(int) {
        copy_wait<slots - 2>();
        // Now the chunk is there for all, and all are done with the slot that is filled next.
        sync_block();
        fetch();
        const uint4 *found = ring + read_slot * S::pair * block_words;
        read_slot = read_slot + 1 == slots ? 0 : read_slot + 1;
        return found;
    }
    LDMLR_DEVICE void rewind() {}
    LDMLR_BOTH static int64_t bytes(int) { return int64_t{slots} * S::pair * block_words * 16; }
};

}  // namespace ldmlr::cuda
