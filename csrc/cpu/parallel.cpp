#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace ldmlr {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto interval = std::chrono::milliseconds(50);

struct Work {
    const int64_t count;
    const std::function<void(int64_t, int, const Stop &)> &task;
    const std::function<bool(int64_t)> &poll;
    std::atomic<int64_t> next{0}, finished{0};
    std::atomic<bool> stopped{false};
    Clock::time_point last_poll = Clock::now();  // touched by the caller's thread only
    std::mutex mutex;
    std::condition_variable ended;
    int helpers = 0;  // still running; guarded by mutex

    Work(int64_t count, const std::function<void(int64_t, int, const Stop &)> &task,
         const std::function<bool(int64_t)> &poll)
        : count(count), task(task), poll(poll) {}

    void poll_now() {
        last_poll = Clock::now();
        if (!stopped && poll(finished)) stopped = true;
    }
    static bool helper_asks(void *work) { return static_cast<Work *>(work)->stopped; }
    static bool caller_asks(void *context) {
        Work *work = static_cast<Work *>(context);
        if (Clock::now() - work->last_poll >= interval) work->poll_now();
        return work->stopped;
    }

    void run(int worker) {
        const Stop stop{worker == 0 ? caller_asks : helper_asks, this};
        while (!stop.asked(stop.context)) {
            const int64_t index = next.fetch_add(1);
            if (index >= count) return;
            task(index, worker, stop);
            finished.fetch_add(1);
        }
    }
    void help(int worker) {
        run(worker);
        const std::lock_guard<std::mutex> lock(mutex);
        --helpers;
        ended.notify_one();
    }
    // Waits for the helpers, polling meanwhile.
    void wait() {
        std::unique_lock<std::mutex> lock(mutex);
        while (helpers > 0) {
            if (ended.wait_for(lock, interval) == std::cv_status::timeout) {
                lock.unlock();
                poll_now();
                lock.lock();
            }
        }
    }
};

}  // namespace

bool run_parallel(int64_t count, int threads, const std::function<void(int64_t, int, const Stop &)> &task,
                  const std::function<bool(int64_t)> &poll) {
    Work work(count, task, poll);
    std::vector<std::thread> helpers;
    // All memory at once: to run out of it beside running threads would end the process.
    helpers.reserve(static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(threads, count) - 1)));
    for (int worker = 1; worker < threads && worker < count; ++worker) {
        try {
            {
                const std::lock_guard<std::mutex> lock(work.mutex);
                ++work.helpers;
            }
            helpers.emplace_back(&Work::help, &work, worker);
        } catch (const std::system_error &) {
            // The system gives no more threads: the rows are the same with fewer.
            const std::lock_guard<std::mutex> lock(work.mutex);
            --work.helpers;
            break;
        }
    }
    work.run(0);
    work.wait();
    for (std::thread &helper : helpers) helper.join();
    return !work.stopped;
}

}  // namespace ldmlr
