// The functions of ../cuda/ptx_bulk.cuh on emulated threads: clusters, memory barriers, bulk copies.
//
// A bulk copy arrives when no thread can go on without it, newest and oldest first in turn, or, in every
// other cluster, at once: the one shows a wait that is missing before a read, the other one before a write.
// Errors: a barrier used before it is initialised or written over, an arrival too many, a copy or an arrival
// at a block that has ended, a copy to a place that is not in shared memory.
#pragma once

#include "emulate.h"

namespace ldmlr::cuda::emulate {

constexpr uint64_t barrier_mark = 0x5ba771e45ba771e4;  // what memory shows of a barrier

inline uint32_t place_of(const Block &b, const void *p, size_t bytes) {
    const char *at = static_cast<const char *>(p);
    if (at < b.memory || at + bytes > b.memory + b.shared)
        throw std::runtime_error("an address that is not in shared memory");
    return static_cast<uint32_t>(at - b.memory);
}

inline Barrier &barrier_at(Block &b, uint32_t place) {
    const auto found = b.barriers.find(place);
    if (found == b.barriers.end()) throw std::runtime_error("a barrier was used before it was initialised");
    uint64_t mark;
    std::memcpy(&mark, b.memory + place, 8);
    if (mark != barrier_mark) throw std::runtime_error("a barrier was written over");
    return found->second;
}

inline void end_phase_if_done(Barrier &barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    barrier.pending = barrier.count;
    ++barrier.phase;
    progress();
}

inline void arrive(Block &b, uint32_t place) {
    if (b.exited()) throw std::runtime_error("an arrival at a block that has ended");
    Barrier &barrier = barrier_at(b, place);
    if (barrier.pending == 0) throw std::runtime_error("an arrival too many at a barrier");
    --barrier.pending;
    progress();
    end_phase_if_done(barrier);
}

inline void deliver(const BulkCopy &copy) {
    if (copy.to->exited()) throw std::runtime_error("a bulk copy to a block that has ended");
    Barrier &barrier = barrier_at(*copy.to, copy.barrier);
    std::memcpy(copy.to->memory + copy.place, copy.from, copy.bytes);
    barrier.bytes -= copy.bytes;
    end_phase_if_done(barrier);
}

inline void issue(Block &to, void *shared, const void *global, uint32_t bytes, uint64_t *barrier) {
    const Block &here = *block();
    const uint32_t place = place_of(here, shared, bytes);
    if (place % 16 || bytes % 16 || reinterpret_cast<uintptr_t>(global) % 16)
        throw std::runtime_error("a bulk copy that is no multiple of 16 bytes");
    progress();
    const BulkCopy copy = {&to, place, global, bytes, place_of(here, barrier, 8)};
    Cluster &c = *here.cluster;
    c.at_once ? deliver(copy) : c.copies.push_back(copy);
}

}  // namespace ldmlr::cuda::emulate

namespace ldmlr::cuda {

inline uint32_t cluster_rank() {
    return static_cast<uint32_t>(emulate::block()->rank);
}
inline void cluster_arrive() {
    emulate::Cluster &c = *emulate::block()->cluster;
    if (emulate::fiber().at_cluster_barrier)
        throw std::runtime_error("two arrivals at the cluster's barrier");
    emulate::fiber().at_cluster_barrier = true;
    emulate::progress();
    if (++c.arrived < emulate::block()->threads * static_cast<int>(c.blocks.size())) return;
    c.arrived = 0;
    ++c.generation;
    for (const auto &b : c.blocks)
        for (emulate::Fiber &f : b->fibers) f.at_cluster_barrier = false;
}
inline void cluster_wait() {
    while (emulate::fiber().at_cluster_barrier) emulate::yield();
}

inline void barrier_init(uint64_t *barrier, uint32_t count) {
    emulate::Block &b = *emulate::block();
    const uint32_t place = emulate::place_of(b, barrier, 8);
    if (place % 8) throw std::runtime_error("a barrier at an odd address");
    *barrier = emulate::barrier_mark;
    b.barriers[place] = {static_cast<int>(count), static_cast<int>(count)};
}
inline void fence_barrier_init() {}
inline void barrier_arrive_expect(uint64_t *barrier, uint32_t bytes) {
    emulate::Block &b = *emulate::block();
    const uint32_t place = emulate::place_of(b, barrier, 8);
    emulate::barrier_at(b, place).bytes += bytes;
    emulate::arrive(b, place);
}
// The rank above the 24 bits that a place in shared memory may have.
inline uint32_t address_in(uint32_t rank, const void *p) {
    if (rank >= emulate::block()->cluster->blocks.size()) throw std::runtime_error("no such block");
    return rank << 24 | emulate::place_of(*emulate::block(), p, 1);
}
// Whoever waits for it goes on before this thread does.
inline void barrier_arrive(uint32_t cluster_address) {
    emulate::arrive(*emulate::block()->cluster->blocks[cluster_address >> 24], cluster_address & 0xffffff);
    emulate::yield();
}
inline bool barrier_try(uint64_t *barrier, uint32_t parity) {
    emulate::Block &b = *emulate::block();
    const uint32_t place = emulate::place_of(b, barrier, 8);
    const auto over = [&] { return emulate::barrier_at(b, place).phase % 2 != parity; };
    if (!over()) emulate::yield();
    const bool found = over();
    if (found) emulate::progress();
    return found;
}
inline void copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *barrier) {
    emulate::issue(*emulate::block(), shared, global, bytes, barrier);
}
inline void copy_bulk_multicast(void *shared, const void *global, uint32_t bytes, uint64_t *barrier,
                                uint16_t mask) {
    const auto &blocks = emulate::block()->cluster->blocks;
    if (mask == 0 || mask >> blocks.size()) throw std::runtime_error("a copy to blocks that are not there");
    for (size_t rank = 0; rank < blocks.size(); ++rank)
        if (mask >> rank & 1) emulate::issue(*blocks[rank], shared, global, bytes, barrier);
}
template <int count>
inline void give_registers() {}
template <int count>
inline void take_registers() {}

}  // namespace ldmlr::cuda
