// The functions of ../cuda/ptx.cuh on emulated threads (emulate_threads.h).
#pragma once

#include "emulate_threads.h"
#include "emulate_types.h"

#define LDMLR_WARPGROUP

namespace ldmlr::cuda::emulate {

inline float element(const uint32_t *registers, int index) {
    return from_bfloat((registers[index / 2] >> (index % 2 * 16)) & 0xffff);
}

// PTX ISA, matrix fragments of mma.m16n8k16.
inline void mma_of_warp(Warp &w) {
    static float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 8; ++i)
            a[g + (i / 2 % 2) * 8][2 * t + i % 2 + (i / 4) * 8] = element(w.mma[lane].a, i);
        for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + (i / 2) * 8][g] = element(w.mma[lane].b, i);
    }
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = *w.mma[lane].c[i];
            for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
            *w.mma[lane].c[i] = static_cast<float>(sum);
        }
}

// PTX ISA, matrix descriptor and 128-byte swizzle: address bits 4 - 6 are exclusive-ored with bits 7 - 9.
inline float swizzled(uint64_t descriptor, int row, int k) {
    const uint64_t base = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) throw std::runtime_error("descriptor");
    uint64_t at =
        base + static_cast<uint64_t>(row / 8) * stride + static_cast<uint64_t>(row % 8 * 128 + 2 * k);
    at ^= (at >> 7 & 7) << 4;
    uint16_t bits;
    std::memcpy(&bits, block()->memory + at, 2);
    return from_bfloat(bits);
}

inline void execute(const WarpgroupMma &w) {
    static float a[64][16], b[256][16];
    for (int k = 0; k < 16; ++k) {
        for (int row = 0; row < 64; ++row) a[row][k] = swizzled(w.a, row, k);
        for (int column = 0; column < w.columns; ++column) b[column][k] = swizzled(w.b, column, k);
    }
    for (int thread = 0; thread < 128; ++thread)
        for (int i = 0; i < w.columns / 2; ++i) {
            const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            double sum = w.d[thread][i];
            for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[column][k];
            w.d[thread][i] = static_cast<float>(sum);
        }
}

}  // namespace ldmlr::cuda::emulate

namespace ldmlr::cuda {

inline char *shared_memory() {
    return emulate::block()->memory;
}
inline void mma(float &c0, float &c1, float &c2, float &c3, const uint32_t (&a)[4], uint32_t b0,
                uint32_t b1) {
    emulate::warp().mma[emulate::block()->current % 32] = {{&c0, &c1, &c2, &c3}, a, {b0, b1}};
    emulate::collective(&emulate::mma_of_warp);
}
inline void load_matrices(uint32_t (&a)[4], const void *row) {
    emulate::warp().matrices[emulate::block()->current % 32] = {a, row};
    emulate::collective([](emulate::Warp &w) {
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i)
                std::memcpy(&w.matrices[lane].a[i],
                            static_cast<const char *>(w.matrices[8 * i + lane / 4].row) + lane % 4 * 4, 4);
    });
}
inline void fence_async() {}
inline void warpgroup_fence() {}
template <int count>
inline void settled(float (&)[count]) {}
inline uint64_t matrix_descriptor(const void *p) {
    const uint64_t address = static_cast<uint64_t>(static_cast<const char *>(p) - emulate::block()->memory);
    if (address % 1024) throw std::runtime_error("a swizzled tile at an odd address");
    return address >> 4 | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
}
template <int count>
inline void warpgroup_mma(float (&d)[count], uint64_t a, uint64_t b) {
    const int thread = emulate::block()->current;
    emulate::block()->warpgroups[static_cast<size_t>(thread / 128)].collecting.d[thread % 128] = d;
    emulate::warpgroup_collective([&](emulate::Warpgroup &w) {
        w.collecting.a = a, w.collecting.b = b, w.collecting.columns = 2 * count;
        w.open.push_back(w.collecting);
    });
}
inline void warpgroup_commit() {
    emulate::warpgroup_collective([](emulate::Warpgroup &w) {
        w.committed.push_back(std::move(w.open));
        w.open.clear();
    });
}
template <int pending>
inline void warpgroup_wait() {
    emulate::warpgroup_collective([](emulate::Warpgroup &w) {
        for (; w.committed.size() > pending; w.committed.pop_front())
            for (const emulate::WarpgroupMma &product : w.committed.front()) emulate::execute(product);
    });
}
inline void copy_async(void *shared, const void *global) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16)
        throw std::runtime_error("a copy of 16 bytes to or from an odd address");
    emulate::fiber().open.push_back({shared, global});
}
inline void copy_commit() {
    emulate::fiber().groups.push_back(std::move(emulate::fiber().open));
    emulate::fiber().open.clear();
}
template <int pending>
inline void copy_wait() {
    auto &groups = emulate::fiber().groups;
    for (; groups.size() > pending; groups.pop_front())
        for (const emulate::Copy &copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
}
inline void sync_block() {
    emulate::Block &b = *emulate::block();
    const uint64_t generation = b.barrier_generation;
    emulate::progress();
    if (++b.at_barrier == b.threads) {
        b.at_barrier = 0;
        ++b.barrier_generation;
        return;
    }
    while (b.barrier_generation == generation) emulate::yield();
}
inline int thread_index() {
    return emulate::block()->current;
}
inline int same_in_warp(int x) {
    return x;
}
inline uint32_t ballot(bool vote) {
    const int lane = emulate::block()->current % 32;
    emulate::Warp &w = emulate::warp();
    w.votes = (w.votes & ~(1u << lane)) | static_cast<uint32_t>(vote) << lane;
    emulate::collective([](emulate::Warp &all) { all.result = all.votes; });
    return w.result;
}
inline int block_x() {
    return emulate::block()->x;
}
inline int block_y() {
    return emulate::block()->y;
}
inline int blocks_x() {
    return emulate::block()->width;
}

}  // namespace ldmlr::cuda
