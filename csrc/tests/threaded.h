// The functions of ../cuda/ptx.cuh on real threads of the host: a thread each, and some blocks at once.
//
// Under ThreadSanitizer this shows what emulate_threads.h cannot: two threads that touch the same memory
// without a barrier between them, whatever the order they happened to run in, also between the blocks of a
// launch. Only for kernels without products by tensor cores and asynchronous copies, those of the trainer.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "emulate_types.h"

namespace ldmlr::cuda::emulate {

constexpr int threads_at_once = 1024;

// Where all threads of a group wait for each other.
class Meeting {
  public:
    explicit Meeting(int threads) : threads_(threads) {}
    // The last to come runs `together` before the others go on.
    template <class F>
    void wait(const F &together) {
        std::unique_lock<std::mutex> lock(mutex_);
        const uint64_t generation = generation_;
        if (++arrived_ == threads_) {
            together();
            arrived_ = 0;
            ++generation_;
            all_.notify_all();
        } else {
            all_.wait(lock, [&] { return generation_ != generation; });
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable all_;
    const int threads_;
    int arrived_ = 0;
    uint64_t generation_ = 0;
};

struct Warp {
    Meeting meeting{32};
    bool votes[32] = {};
    uint32_t result = 0;
};

struct Block {
    int x, y, width;
    Meeting meeting;
    std::unique_ptr<Warp[]> warps;
    std::unique_ptr<char, decltype(&std::free)> memory;
    Block(int x, int y, int width, int threads, size_t shared)
        : x(x),
          y(y),
          width(width),
          meeting(threads),
          warps(new Warp[static_cast<size_t>(threads / 32)]),
          memory(static_cast<char *>(std::aligned_alloc(1024, (shared / 1024 + 1) * 1024)), &std::free) {
        std::memset(memory.get(), 0xff, shared);
    }
};

inline thread_local Block *block = nullptr;
inline thread_local int thread = 0;

// As many blocks run at once as the number of threads allows; when one has ended, its threads take another.
inline void run(int width, int height, int, int threads, size_t shared, const std::function<void()> &body) {
    const int blocks = width * height, together = std::min(blocks, std::max(1, threads_at_once / threads));
    std::vector<std::unique_ptr<Block>> all;
    for (int i = 0; i < blocks; ++i)
        all.push_back(std::make_unique<Block>(i % width, i / width, width, threads, shared));
    std::vector<std::thread> workers;
    for (int start = 0; start < together; ++start)
        for (int t = 0; t < threads; ++t)
            workers.emplace_back([&, start, t] {
                thread = t;
                for (int i = start; i < blocks; i += together) {
                    block = all[static_cast<size_t>(i)].get();
                    body();
                }
            });
    for (std::thread &worker : workers) worker.join();
}

}  // namespace ldmlr::cuda::emulate

namespace ldmlr::cuda {

inline char *shared_memory() {
    return emulate::block->memory.get();
}
inline void sync_block() {
    emulate::block->meeting.wait([] {});
}
inline int thread_index() {
    return emulate::thread;
}
inline uint32_t ballot(bool vote) {
    emulate::Warp &warp = emulate::block->warps[static_cast<size_t>(emulate::thread / 32)];
    const auto count = [&] {
        warp.result = 0;
        for (int lane = 0; lane < 32; ++lane) warp.result |= static_cast<uint32_t>(warp.votes[lane]) << lane;
    };
    warp.votes[emulate::thread % 32] = vote;
    warp.meeting.wait(count);
    const uint32_t result = warp.result;
    warp.meeting.wait([] {});  // nobody votes again before all have read
    return result;
}
inline int block_x() {
    return emulate::block->x;
}
inline int block_y() {
    return emulate::block->y;
}
inline int blocks_x() {
    return emulate::block->width;
}
// Named by functions that no kernel here calls.
void mma(float &, float &, float &, float &, const uint32_t (&)[4], uint32_t, uint32_t);

}  // namespace ldmlr::cuda
