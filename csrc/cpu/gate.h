// Where the threads of a training meet between the phases of its steps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ldmlr {

// Helpers wait here for the caller's thread between the phases of a step, and it for them.
class Gate {
  public:
    explicit Gate(int helpers) : helpers_(helpers) {}

    // A helper: says that it is done with a phase, and waits for the next. False: there is none.
    bool next(unsigned &phase) {
        if (arrived_.fetch_add(1) + 1 == helpers_) wake(caller_);
        wait(helper_, [&] { return phase_.load() != phase; });
        ++phase;
        return !closed_.load();
    }
    // The caller: waits for all helpers.
    void gather() {
        wait(caller_, [&] { return arrived_.load() == helpers_; });
    }
    // The caller: starts the next phase, or none any more.
    void open(bool closed = false) {
        arrived_.store(0);
        closed_.store(closed);
        phase_.fetch_add(1);
        wake(helper_);
    }

  private:
    struct Place {
        std::mutex mutex;
        std::condition_variable condition;
    };
    template <class Ready>
    void wait(Place &place, const Ready &ready) {
        // Phases are short: waiting awake for some microseconds is cheaper than being woken up.
        for (int i = 0; i < 4000; ++i) {
            if (ready()) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        std::unique_lock<std::mutex> lock(place.mutex);
        place.condition.wait(lock, ready);
    }
    void wake(Place &place) {
        {
            const std::lock_guard<std::mutex> lock(place.mutex);
        }
        place.condition.notify_all();
    }

    const int helpers_;
    std::atomic<int> arrived_{0};
    std::atomic<unsigned> phase_{0};
    std::atomic<bool> closed_{false};
    Place caller_, helper_;
};

}  // namespace ldmlr
