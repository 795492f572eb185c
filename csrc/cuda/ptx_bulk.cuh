// The instructions of sm_90 for clusters, memory barriers and bulk copies, one each; see ptx.cuh.
#pragma once

#include "ptx.cuh"

#ifdef LDMLR_EMULATE
#include "../tests/emulate_bulk.h"
#elif defined(LDMLR_WARPGROUP)

namespace ldmlr::cuda {

// Number of this block in its cluster.
LDMLR_DEVICE uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// A barrier of all threads of a cluster in two halves. It orders barriers that were initialised (below), not
// what was written: .release would wait for all writes of the thread to reach the whole device.
LDMLR_DEVICE void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
LDMLR_DEVICE void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// A phase of a memory barrier is over after `count` arrivals, once all bytes it was told of have come.
LDMLR_DEVICE void barrier_init(uint64_t *barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
                 : "memory");
}
// Barriers initialised before are seen by the cluster and by the copy engine.
LDMLR_DEVICE void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
LDMLR_DEVICE void barrier_arrive_expect(uint64_t *barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}
// The address, for the cluster, of what lies at `p` in the block with a rank.
LDMLR_DEVICE uint32_t address_in(uint32_t rank, const void *p) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
    return address;
}
// Orders no ordinary reads and writes beyond the block (.release.cluster, a wait for the whole device): what
// lies behind these barriers is touched by wgmma and by the copy engine alone.
LDMLR_DEVICE void barrier_arrive(uint32_t cluster_address) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(cluster_address) : "memory");
}
// Whether the last phase of this parity is over, after a wait of a while; of a new barrier, phase 1 is.
LDMLR_DEVICE bool barrier_try(uint64_t *barrier, uint32_t parity) {
    uint32_t over;
    asm volatile(
        "{ .reg .pred over; mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2; "
        "selp.u32 %0, 1, 0, over; }"
        : "=r"(over)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
    return over != 0;
}

// Some bytes, a multiple of 16, from global to shared memory by the copy engine, to be waited for at a
// barrier.
LDMLR_DEVICE void copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}
// The same to all blocks of the cluster in `mask`, each at its own `shared` and `barrier`.
LDMLR_DEVICE void copy_bulk_multicast(void *shared, const void *global, uint32_t bytes, uint64_t *barrier,
                                      uint16_t mask) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"(mask)
        : "memory");
}

// Moves registers between warpgroups: by one call in each, `count` a thread from here on.
template <int count>
LDMLR_DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
LDMLR_DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

}  // namespace ldmlr::cuda

#endif
