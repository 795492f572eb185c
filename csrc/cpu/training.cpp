#include "training.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "gate.h"
#include "subnormals.h"
#include "train_memory.h"

namespace ldmlr {

extern const TrainSet train_baseline;
#if defined(__x86_64__)
extern const TrainSet train_avx2, train_avx512, train_avx512bf16;
#endif

namespace {

class Trainer {
  public:
    Trainer(const TrainSet &set, const TrainParams &params, Dtype products)
        : kernels_(products == Dtype::bfloat16 ? set.bfloat16 : set.float32),
          memory_(params, set.panel, products == Dtype::bfloat16),
          t_(memory_.training()) {}

    bool run(uint32_t first, uint32_t count, int threads, uint32_t every,
             const std::function<bool(uint32_t, double)> &report, const std::function<bool()> &poll) {
        memory_.allocate(std::min<int>(threads, static_cast<int>(memory_.tasks().size())),
                         kernels_.tile_scratch(t_));
        memory_.move(true);
        {
            [[maybe_unused]] const FlushSubnormals flush;
            for (const TrainMatrix &matrix : memory_.matrices()) kernels_.pack(t_, matrix);
            work(first, count, every, report, poll);
        }
        memory_.move(false);
        return !stopped_;
    }

  private:
    void tiles(uint32_t step, int worker) {
        for (int tile; (tile = next_.fetch_add(1)) < t_.tiles;)
            kernels_.tile(t_, step, tile, memory_.scratch()[static_cast<size_t>(worker)]);
    }
    void blocks(uint32_t step) {
        const int count = static_cast<int>(memory_.tasks().size());
        for (int task; (task = next_.fetch_add(1)) < count;)
            kernels_.task(t_, t_.p.steps[step], memory_.tasks()[static_cast<size_t>(task)]);
    }

    // Rows of the batch class by class, and the loss: between the phases, on one thread.
    double gather() {
        const int batch = t_.p.batch, classes = t_.p.classes;
        std::fill(t_.class_first, t_.class_first + classes + 2, 0);
        for (int i = 0; i < batch; ++i) ++t_.class_first[t_.label[i] + 1];
        for (int c = 0; c <= classes; ++c) t_.class_first[c + 1] += t_.class_first[c];
        places_.assign(t_.class_first, t_.class_first + classes + 1);
        double loss = 0.0;
        for (int i = 0; i < batch; ++i) {
            t_.class_rows[places_[static_cast<size_t>(t_.label[i])]++] = i;
            loss += t_.row_loss[i];
        }
        return loss / (static_cast<double>(batch) * t_.p.latent);
    }

    void help(Gate &gate, int worker, uint32_t first, uint32_t count) {
        [[maybe_unused]] const FlushSubnormals flush;
        unsigned phase = 0;
        for (uint32_t step = first; step < first + count; ++step) {
            if (!gate.next(phase)) return;
            tiles(step, worker);
            if (!gate.next(phase)) return;
            blocks(step);
        }
        gate.next(phase);
    }

    void work(uint32_t first, uint32_t count, uint32_t every,
              const std::function<bool(uint32_t, double)> &report, const std::function<bool()> &poll) {
        using Clock = std::chrono::steady_clock;
        places_.reserve(static_cast<size_t>(t_.p.classes) + 1);
        // The gate has to know how many helpers there are, and these are only known once they run.
        std::vector<std::thread> helpers;
        helpers.reserve(memory_.scratch().size());
        std::mutex starting;
        std::condition_variable started;
        Gate *gate = nullptr;
        for (size_t worker = 1; worker < memory_.scratch().size(); ++worker) {
            try {
                helpers.emplace_back([&, worker] {
                    Gate *found;
                    {
                        std::unique_lock<std::mutex> lock(starting);
                        started.wait(lock, [&] { return gate != nullptr; });
                        found = gate;
                    }
                    help(*found, static_cast<int>(worker), first, count);
                });
            } catch (const std::system_error &) {
                break;  // the system gives no more threads: the model is the same with fewer
            }
        }
        Gate shared(static_cast<int>(helpers.size()));
        {
            const std::lock_guard<std::mutex> lock(starting);
            gate = &shared;
        }
        started.notify_all();
        Clock::time_point polled = Clock::now();
        for (uint32_t step = first; step < first + count && !stopped_; ++step) {
            shared.gather();
            next_.store(0);
            shared.open();
            tiles(step, 0);
            shared.gather();
            t_.p.losses[step - first] = gather();
            next_.store(0);
            shared.open();
            blocks(step);
            const uint32_t done = step + 1;
            if (done % every == 0 || done == first + count) {
                shared.gather();
                stopped_ = report(done, kernels_.answering(t_));
                polled = Clock::now();
            } else if (Clock::now() - polled >= std::chrono::milliseconds(50)) {
                stopped_ = poll();
                polled = Clock::now();
            }
        }
        shared.gather();
        shared.open(true);
        for (std::thread &helper : helpers) helper.join();
    }

    const TrainKernels &kernels_;
    TrainMemory memory_;
    const Training &t_;
    std::vector<int32_t> places_;
    std::atomic<int> next_{0};
    bool stopped_ = false;
};

}  // namespace

const TrainSet *find_train_set(const char *name) {
#if defined(__x86_64__)
    const struct {
        const char *name;
        const TrainSet *set;
    } sets[] = {{"baseline", &train_baseline},     {"avx2", &train_avx2},
                {"avx512", &train_avx512},         {"avx512vnni", &train_avx512},
                {"avx512bf16", &train_avx512bf16}, {"amx", &train_avx512bf16}};
    for (const auto &entry : sets)
        if (std::strcmp(entry.name, name) == 0) return entry.set;
    return nullptr;
#else
    return std::strcmp(name, "baseline") == 0 ? &train_baseline : nullptr;
#endif
}

int64_t train_numbers(const TrainParams &params) {
    return TrainMemory(params, train_baseline.panel, false).numbers();
}

bool train(const TrainSet &set, const TrainParams &params, Dtype products, uint32_t first, uint32_t count,
           int threads, uint32_t every, const std::function<bool(uint32_t, double)> &report,
           const std::function<bool()> &poll) {
    if (count == 0) return true;
    return Trainer(set, params, products).run(first, count, threads, every, report, poll);
}

}  // namespace ldmlr
