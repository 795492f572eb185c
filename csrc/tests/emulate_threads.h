// Blocks and clusters of CUDA threads on the host: enough to run the kernels of ../cuda without a GPU.
//
// Threads are fibers on one host thread. They change at the points where the hardware makes them wait for
// each other (mma, ldmatrix, barriers), first to last and last to first in turn, so that an order that only
// happens to work shows. Copies to shared memory arrive as late as the waits allow, shared memory starts as
// NaN and ends in a guard, and threads that wait for each other forever are reported.
//
// Not shown by this: data races between warps that these orders do not meet, and the hardware's rounding
// inside a product (here a double sum, rounded once).
//
// This file is threads and what they own; emulate.h has the instructions, emulate_bulk.h those of clusters.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

namespace ldmlr::cuda::emulate {

constexpr size_t stack_bytes = 256 << 10, guard_bytes = 4096;

struct Copy {
    void *to;
    const void *from;
};

struct Warp {
    int arrived = 0;
    uint64_t generation = 0;
    struct Mma {
        float *c[4];
        const uint32_t *a;
        uint32_t b[2];
    } mma[32];
    struct Matrices {
        uint32_t *a;
        const void *row;
    } matrices[32];
    uint32_t votes = 0, result = 0;  // of a ballot
};

// One wgmma of a warpgroup of 128 threads: descriptors and everybody's accumulators.
struct WarpgroupMma {
    uint64_t a, b;
    int columns;
    float *d[128];
};

struct Warpgroup {
    int arrived = 0;
    uint64_t generation = 0;
    WarpgroupMma collecting;
    std::vector<WarpgroupMma> open;
    std::deque<std::vector<WarpgroupMma>> committed;  // not yet waited for
};

// Stacks that no fiber has: the next block takes them, as giving memory back and forth takes longer than most
// kernels.
inline std::vector<std::unique_ptr<char[]>> &spare_stacks() {
    static std::vector<std::unique_ptr<char[]>> stacks;
    return stacks;
}

struct Fiber {
    ucontext_t context;
    jmp_buf state;
    std::unique_ptr<char[]> stack;
    bool started = false, finished = false, at_cluster_barrier = false;
    std::deque<std::vector<Copy>> groups;
    std::vector<Copy> open;
    void take_stack() {
        auto &spare = spare_stacks();
        if (spare.empty()) {
            stack.reset(new char[stack_bytes]);
        } else {
            stack = std::move(spare.back());
            spare.pop_back();
        }
    }
    ~Fiber() {
        if (stack) spare_stacks().push_back(std::move(stack));
    }
};

// An mbarrier: a phase is over when all arrivals came and no bytes are expected any more. Copies of another
// block may count their bytes before this block says that it expects them: `bytes` may be below zero.
struct Barrier {
    int count, pending;
    int64_t bytes = 0;
    uint32_t phase = 0;
};

struct Cluster;

struct Block {
    int x, y, width, threads, current = 0;
    Cluster *cluster = nullptr;
    int rank = 0;  // in the cluster
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    int at_barrier = 0;
    std::vector<Warpgroup> warpgroups;
    uint64_t barrier_generation = 0;
    std::unique_ptr<char, decltype(&std::free)> room{nullptr, &std::free};
    char *memory = nullptr;
    size_t shared = 0;
    std::map<uint32_t, Barrier> barriers;  // by their place in shared memory
    jmp_buf scheduler;
    const std::function<void()> *body = nullptr;
    bool exited() const {
        for (const Fiber &f : fibers)
            if (!f.finished) return false;
        return true;
    }
};

// A piece of a bulk copy on its way to one block.
struct BulkCopy {
    Block *to;
    uint32_t place;
    const void *from;
    uint32_t bytes, barrier;
};

struct Cluster {
    std::vector<std::unique_ptr<Block>> blocks;
    bool progress = false;
    // Where true, bulk copies arrive when they are issued, else when nothing else goes on.
    bool at_once = false;
    std::deque<BulkCopy> copies;
    int arrived = 0;
    uint64_t generation = 0;
    std::exception_ptr error;
};

inline Block *&block() {
    static Block *current = nullptr;
    return current;
}
inline Fiber &fiber() {
    return block()->fibers[static_cast<size_t>(block()->current)];
}
inline Warp &warp() {
    return block()->warps[static_cast<size_t>(block()->current / 32)];
}
inline void progress() {
    block()->cluster->progress = true;
}

inline void yield() {
    if (_setjmp(fiber().state) == 0) _longjmp(block()->scheduler, 1);
}

// Waits until all `threads` that share a Warp or Warpgroup are here; the last runs `together` for all.
template <class Unit, class F>
void collective(Unit &w, int threads, const F &together) {
    const uint64_t generation = w.generation;
    progress();
    if (++w.arrived == threads) {
        together(w);
        w.arrived = 0;
        ++w.generation;
        return;
    }
    while (w.generation == generation) yield();
}
template <class F>
void collective(const F &together) {
    collective(warp(), 32, together);
}
template <class F>
void warpgroup_collective(const F &together) {
    collective(block()->warpgroups[static_cast<size_t>(block()->current / 128)], 128, together);
}

inline void entry() {
    try {
        (*block()->body)();
    } catch (...) {
        std::exception_ptr &error = block()->cluster->error;
        if (!error) error = std::current_exception();
    }
    fiber().finished = true;
    progress();
    _longjmp(block()->scheduler, 1);
}

inline void resume(Block &b, int thread) {
    b.current = thread;
    block() = &b;
    Fiber &f = b.fibers[static_cast<size_t>(thread)];
    if (f.finished || _setjmp(b.scheduler) != 0) return;
    if (f.started) _longjmp(f.state, 1);
    f.started = true;
    setcontext(&f.context);
}

inline void prepare(Block &b, int threads, size_t shared, const std::function<void()> &body) {
    b.threads = threads, b.shared = shared, b.body = &body;
    b.fibers = std::vector<Fiber>(static_cast<size_t>(threads));
    b.warps.resize(static_cast<size_t>(threads / 32));
    b.warpgroups.resize(static_cast<size_t>(threads / 128));
    b.room.reset(static_cast<char *>(std::aligned_alloc(1024, (shared + 1023) / 1024 * 1024 + guard_bytes)));
    b.memory = b.room.get();
    std::memset(b.memory, 0xff, shared + guard_bytes);
    for (Fiber &f : b.fibers) {
        f.take_stack();
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get();
        f.context.uc_stack.ss_size = stack_bytes;
        f.context.uc_link = nullptr;
        makecontext(&f.context, &entry, 0);
    }
}

inline void check_end(const Block &b) {
    for (const Fiber &f : b.fibers) {
        if (!f.groups.empty() || !f.open.empty()) throw std::runtime_error("a copy was never waited for");
        if (f.at_cluster_barrier) throw std::runtime_error("a barrier of the cluster was never waited for");
    }
    for (const Warpgroup &w : b.warpgroups)
        if (!w.committed.empty() || !w.open.empty())
            throw std::runtime_error("a product was never waited for");
    for (const auto &[place, barrier] : b.barriers)
        if (barrier.bytes != 0) throw std::runtime_error("a barrier expects bytes that never came");
    for (size_t i = 0; i < guard_bytes; ++i)
        if (b.memory[b.shared + i] != static_cast<char>(0xff))
            throw std::runtime_error("a write beyond the shared memory");
}

void deliver(const BulkCopy &copy);  // emulate_bulk.h

// A copy that nobody could do without any longer; copies complete in no particular order.
inline bool deliver_one(Cluster &c, bool oldest) {
    if (c.copies.empty()) return false;
    const BulkCopy copy = oldest ? c.copies.front() : c.copies.back();
    oldest ? c.copies.pop_front() : c.copies.pop_back();
    deliver(copy);
    return true;
}

// Runs the blocks of one cluster to their end. They take turns: one goes on for some rounds, or until it can
// not, so that no block relies on where its neighbour is.
inline void run_cluster(Cluster &c, int first) {
    const int threads = c.blocks.front()->threads, blocks = static_cast<int>(c.blocks.size());
    constexpr int rounds_of_turn = 6;
    volatile int turn = first, in_turn = 0, idle = 0;
    for (volatile int round = 0;; round = round + 1) {
        Block &b = *c.blocks[static_cast<size_t>(turn % blocks)];
        c.progress = false;
        for (volatile int i = 0; i < threads; i = i + 1) resume(b, round % 2 ? threads - 1 - i : i);
        if (c.error) std::rethrow_exception(c.error);
        bool running = false;
        for (const auto &other : c.blocks) running |= !other->exited();
        if (!running) break;
        idle = c.progress ? 0 : idle + 1;
        in_turn = in_turn + 1;
        if (!c.progress || in_turn == rounds_of_turn) turn = turn + 1, in_turn = 0;
        if (idle < blocks) continue;
        if (!deliver_one(c, round % 4 < 2)) throw std::runtime_error("threads wait for each other forever");
        idle = 0;
    }
    if (!c.copies.empty()) throw std::runtime_error("a bulk copy was never waited for");
    for (const auto &b : c.blocks) check_end(*b);
}

// A grid whose rows are cut into clusters of some blocks.
inline void run(int width, int height, int cluster, int threads, size_t shared,
                const std::function<void()> &body) {
    if (shared > 227 * 1024) throw std::runtime_error("more shared memory than there is");
    if (width % cluster) throw std::runtime_error("a grid that is no whole number of clusters");
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; x += cluster) {
            Cluster c;
            c.at_once = (x / cluster + y) % 2 == 1;
            for (int rank = 0; rank < cluster; ++rank) {
                c.blocks.push_back(std::make_unique<Block>());
                Block &b = *c.blocks.back();
                b.x = x + rank, b.y = y, b.width = width, b.cluster = &c, b.rank = rank;
                prepare(b, threads, shared, body);
            }
            run_cluster(c, y);
        }
    block() = nullptr;
}

}  // namespace ldmlr::cuda::emulate
