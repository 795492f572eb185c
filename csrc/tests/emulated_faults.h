// Small kernels with a fault each, to see that the emulator reports it: barriers, bulk copies and clusters.
//
// Memory of a block: 64 bytes for copies, then two barriers.
#pragma once

#include <string>

#include "../cuda/bulk.cuh"

namespace ldmlr::cuda {

alignas(16) inline const uint32_t fault_source[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

struct FaultBlock {
    uint32_t *words = reinterpret_cast<uint32_t *>(shared_memory());
    uint64_t *barrier = reinterpret_cast<uint64_t *>(shared_memory() + 64), *other = barrier + 1;
    bool first = thread_index() == 0;
    void init(uint32_t arrivals = 1) const {
        if (first) barrier_init(barrier, arrivals), barrier_init(other, arrivals);
        cluster_arrive();
        cluster_wait();
    }
    void copy() const { copy_bulk(words, fault_source, 64, barrier); }
    void expect_all() const {
        if (words[0] != 1 || words[15] != 16) throw std::runtime_error("the copy is not there");
    }
};

struct Fault {
    int cluster;
    void (*kernel)(FaultBlock);
};

inline constexpr Fault faults[] = {
    // None: one thread copies, all wait.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 64), b.copy();
         barrier_wait(b.barrier, 0);
         b.expect_all();
     }},
    // None: the neighbour's copy comes before this block expects it.
    {2,
     [](FaultBlock b) {
         b.init();
         if (b.first && cluster_rank() == 0) copy_bulk_multicast(b.words, fault_source, 64, b.barrier, 3);
         if (b.first && cluster_rank() == 0)
             barrier_arrive_expect(b.other, 64), copy_bulk(b.words, fault_source, 64, b.other);
         if (cluster_rank() == 0) barrier_wait(b.other, 0);
         cluster_arrive();
         cluster_wait();
         if (b.first) barrier_arrive_expect(b.barrier, 64);
         barrier_wait(b.barrier, 0);
         b.expect_all();
     }},
    // No wait.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 64), b.copy();
         b.expect_all();
     }},
    // Nobody arrives.
    {1,
     [](FaultBlock b) {
         b.init();
         barrier_wait(b.barrier, 0);
     }},
    // More bytes are expected than come.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 128), b.copy();
         barrier_wait(b.barrier, 0);
     }},
    // Bytes are expected of which none comes, and nobody waits.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 64);
     }},
    // A barrier nobody initialised.
    {1, [](FaultBlock b) { barrier_wait(b.barrier, 0); }},
    // A neighbour's barrier that is not initialised yet.
    {2,
     [](FaultBlock b) {
         if (b.first) barrier_init(b.barrier, 64);
         barrier_arrive(address_in(1 - cluster_rank(), b.barrier));
     }},
    // Two arrivals where one is due, while the copy is still on its way.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 64), b.copy(), barrier_arrive_expect(b.barrier, 64);
     }},
    // A store into a barrier.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) b.words[16] = 0;
         barrier_wait(b.barrier, 0);
     }},
    // A copy that nobody waits for.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) barrier_arrive_expect(b.barrier, 64), b.copy();
     }},
    // A copy to a neighbour that does not wait for it.
    {2,
     [](FaultBlock b) {
         b.init();
         if (cluster_rank() == 1) return;
         if (b.first)
             barrier_arrive_expect(b.barrier, 64),
                 copy_bulk_multicast(b.words, fault_source, 64, b.barrier, 3);
         barrier_wait(b.barrier, 0);
     }},
    // An arrival at a neighbour that does not wait for it.
    {2,
     [](FaultBlock b) {
         b.init(64);
         if (cluster_rank() == 1) return;
         sync_block();
         sync_block();
         barrier_arrive(address_in(1, b.barrier));
     }},
    // A cluster of one has no neighbour.
    {1,
     [](FaultBlock b) {
         b.init();
         if (b.first) copy_bulk_multicast(b.words, fault_source, 64, b.barrier, 3);
     }},
};

inline std::string outcome_of(const Fault &fault) {
    try {
        emulate::run(fault.cluster, 1, fault.cluster, 32, 80, [&] { fault.kernel(FaultBlock()); });
        return "";
    } catch (const std::exception &error) {
        return error.what();
    }
}

}  // namespace ldmlr::cuda
