#include "training.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "pack.h"

namespace ldmlr {

extern const TrainSet train_baseline;
#if defined(__x86_64__)
extern const TrainSet train_avx2, train_avx512, train_avx512bf16;
#endif

namespace {

// A unit answers where its standard deviation over a batch is above this.
constexpr float answer = 1e-4f;
constexpr int64_t line = 64;

// Moments of classes that are seldom drawn fade into subnormal numbers, which are many times slower: they
// are zero for the threads of a training, while it lasts.
class FlushSubnormals {
  public:
#if defined(__x86_64__)
    FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~FlushSubnormals() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#endif
};

using Memory = std::unique_ptr<char, void (*)(void *)>;

// Zeros. Phases walk over some megabytes in strides of a row: with large pages, where the system has them
// to give, addresses are translated from the cache.
Memory make_memory(size_t bytes) {
    constexpr size_t page = size_t{1} << 21;
    const size_t all = (bytes + page - 1) / page * page;
    Memory memory(static_cast<char *>(std::aligned_alloc(page, all)), std::free);
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    madvise(memory.get(), all, MADV_HUGEPAGE);
#endif
    std::memset(memory.get(), 0, all);
    return memory;
}

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

// Arrays of the plain state, in their order: where they are in it and in the padded one.
struct Part {
    int64_t plain, padded;
    int32_t outputs, inputs;                // of the plain one
    int32_t padded_outputs, padded_inputs;  // 0 inputs: rows of numbers, without panels
};

class Trainer {
  public:
    Trainer(const TrainSet &set, const TrainParams &params, Dtype products)
        : set_(set),
          kernels_(products == Dtype::bfloat16 ? set.bfloat16 : set.float32),
          paired_(products == Dtype::bfloat16) {
        t_.p = params;
        t_.tiles = (params.batch + params.tile - 1) / params.tile;
        t_.times = params.tile / params.share;
        t_.room = params.tile + spare_rows;
        t_.time_room = t_.times + spare_rows;
        list();
    }

    int64_t numbers() const { return plain_; }

    bool run(uint32_t first, uint32_t count, int threads, uint32_t every,
             const std::function<bool(uint32_t, double)> &report, const std::function<bool()> &poll) {
        allocate(std::min<int>(threads, static_cast<int>(tasks_.size())));
        move(true);
        {
            [[maybe_unused]] const FlushSubnormals flush;
            for (const TrainMatrix &matrix : matrices_) kernels_.pack(t_, matrix);
            stopped_ = false;
            work(first, count, every, report, poll);
        }
        move(false);
        return !stopped_;
    }

  private:
    // What there is, of which sizes: matrices, vectors, slots, tasks, and the arrays of the plain state.
    void list() {
        const int layers = t_.p.layers, hidden = t_.p.hidden, latent = t_.p.latent;
        const int width = padded(hidden), axes = padded(latent);
        const Slots slots{layers};
        auto matrix = [&](int outputs, int inputs, int padded_inputs, int delta, int input) {
            const int rows = padded(outputs);
            parts_.push_back({plain_, total_, outputs, inputs, rows, padded_inputs});
            matrices_.push_back(
                {total_, rows, padded_inputs, delta, input, slots.timed(delta), nullptr, nullptr});
            plain_ += static_cast<int64_t>(outputs) * inputs;
            total_ += static_cast<int64_t>(rows) * padded_inputs;
        };
        auto vector = [&](int size, int delta) {
            parts_.push_back({plain_, total_, 1, size, padded(size), 0});
            vectors_.push_back({total_, padded(size), delta, slots.timed(delta)});
            plain_ += size;
            total_ += padded(size);
        };
        matrix(hidden, latent, axes, slots.d_h(0), slots.x());
        vector(hidden, slots.d_h(0));
        for (int l = 0; l < layers; ++l) matrix(hidden, hidden, width, slots.d_u(l), slots.h(l));
        for (int l = 0; l < layers; ++l) vector(hidden, slots.d_u(l));
        for (int l = 0; l < layers; ++l) matrix(hidden, hidden, width, slots.d_h(l + 1), slots.u(l));
        for (int l = 0; l < layers; ++l) vector(hidden, slots.d_h(l + 1));
        matrix(latent, hidden, width, slots.d_out(), slots.a());
        vector(latent, slots.d_out());
        matrix(hidden, time_inputs, time_inputs, slots.d_t(), slots.t());
        vector(hidden, slots.d_t());
        for (int l = 0; l < layers; ++l) matrix(hidden, hidden, width, slots.d_time(l), slots.t_u());
        for (int l = 0; l < layers; ++l) vector(hidden, slots.d_u(l));
        t_.class_offset = total_;
        const int64_t rows = static_cast<int64_t>(t_.p.classes + 1) * layers;
        for (int64_t row = 0; row < rows; ++row) {
            parts_.push_back({plain_, total_, 1, hidden, width, 0});
            plain_ += hidden;
            total_ += width;
        }
        for (size_t i = 0; i < matrices_.size(); ++i) {
            const TrainMatrix &m = matrices_[i];
            for (int column = 0; column < m.inputs; column += panel_width(m.inputs - column, set_.panel))
                for (int output = 0; output < m.outputs; output += block_outputs)
                    tasks_.push_back({TrainTask::matrix, static_cast<int32_t>(i), output,
                                      std::min(block_outputs, m.outputs - output), column});
        }
        for (size_t i = 0; i < vectors_.size(); ++i)
            tasks_.push_back({TrainTask::vector, static_cast<int32_t>(i), 0, 0, 0});
        constexpr int together = 16;
        for (int c = 0; c <= t_.p.classes; c += together)
            tasks_.push_back({TrainTask::classes, 0, c, std::min(together, t_.p.classes + 1 - c), 0});
        t_.matrices = matrices_.data();
        t_.vectors = vectors_.data();
        t_.tasks = tasks_.data();
    }

    // All memory, before there are threads.
    void allocate(int threads) {
        const int layers = t_.p.layers, width = padded(t_.p.hidden), axes = padded(t_.p.latent);
        const Slots slots{layers};
        int64_t bytes = line;
        auto take = [&](int64_t size) {
            const int64_t at = bytes;
            bytes += (size + line - 1) / line * line;
            return at;
        };
        int64_t state[4];
        for (int64_t &at : state) at = take(total_ * 4);
        const int64_t importance = take(static_cast<int64_t>(axes) * 4);
        std::vector<int64_t> packed(2 * matrices_.size()), places;
        for (size_t i = 0; i < matrices_.size(); ++i) {
            const int64_t numbers = static_cast<int64_t>(matrices_[i].outputs) * matrices_[i].inputs;
            packed[2 * i] = take(numbers * (paired_ ? 2 : 4));
            packed[2 * i + 1] = paired_ ? take(numbers * 2) : 0;
        }
        slots_.clear();
        for (int slot = 0; slot < slots.count(); ++slot) {
            const int columns = slot == slots.x() || slot == slots.d_out() ? axes
                                : slot == slots.t()                        ? time_inputs
                                                                           : width;
            // A line of slack: rows whose stride is a power of two would share sets of the cache.
            const int stride = columns + 16;
            const int64_t rows = slots.timed(slot) ? t_.time_room : t_.room;
            const int64_t tile = (paired_ ? (rows + 1) / 2 : rows) * stride * 4;
            slots_.push_back({nullptr, tile, stride});
            places.push_back(take(tile * t_.tiles));
        }
        const int64_t label = take(static_cast<int64_t>(t_.tiles) * t_.p.tile * 4);
        const int64_t class_rows = take(static_cast<int64_t>(t_.p.batch) * 4);
        const int64_t class_first = take((static_cast<int64_t>(t_.p.classes) + 2) * 4);
        const int64_t row_loss = take(static_cast<int64_t>(t_.tiles) * t_.p.tile * 8);
        const int64_t scratch = (kernels_.tile_scratch(t_) + 2 * line - 1) / line * line;
        scratch_.clear();
        for (int i = 0; i < threads; ++i) scratch_.push_back(reinterpret_cast<char *>(take(scratch)));
        memory_ = make_memory(static_cast<size_t>(bytes));
        char *base = memory_.get();
        float **arrays[4] = {&t_.weights, &t_.moment1, &t_.moment2, &t_.average};
        for (int i = 0; i < 4; ++i) *arrays[i] = reinterpret_cast<float *>(base + state[i]);
        std::memcpy(base + importance, t_.p.importance, static_cast<size_t>(t_.p.latent) * 4);
        importance_ = reinterpret_cast<float *>(base + importance);
        for (size_t i = 0; i < matrices_.size(); ++i) {
            matrices_[i].forward = base + packed[2 * i];
            matrices_[i].backward = paired_ ? base + packed[2 * i + 1]
                                            : reinterpret_cast<char *>(t_.weights + matrices_[i].offset);
        }
        for (size_t i = 0; i < slots_.size(); ++i) slots_[i].base = base + places[i];
        for (char *&at : scratch_) at = base + reinterpret_cast<uintptr_t>(at);
        t_.slots = slots_.data();
        t_.label = reinterpret_cast<int32_t *>(base + label);
        t_.class_rows = reinterpret_cast<int32_t *>(base + class_rows);
        t_.class_first = reinterpret_cast<int32_t *>(base + class_first);
        t_.row_loss = reinterpret_cast<double *>(base + row_loss);
        t_.p.importance = importance_;
    }

    // Copies the plain state into the padded one, or back.
    void move(bool in) {
        float *arrays[4] = {t_.weights, t_.moment1, t_.moment2, t_.average};
        for (int which = 0; which < 4; ++which)
            for (const Part &part : parts_) {
                float *plain = t_.p.state + which * plain_ + part.plain,
                      *padded = arrays[which] + part.padded;
                for (int output = 0; output < part.outputs; ++output, plain += part.inputs)
                    for (int column = 0; column < part.inputs;) {
                        const int width = part.padded_inputs
                                              ? panel_width(part.padded_inputs - column, set_.panel)
                                              : part.padded_outputs;
                        float *at = part.padded_inputs
                                        ? padded + static_cast<int64_t>(column) * part.padded_outputs +
                                              static_cast<int64_t>(output) * width
                                        : padded;
                        const size_t bytes =
                            static_cast<size_t>(std::min(width, part.inputs - column)) * sizeof(float);
                        std::memcpy(in ? at : plain + column, in ? plain + column : at, bytes);
                        column += width;
                    }
            }
    }

    void tiles(uint32_t step, int worker) {
        for (int tile; (tile = next_.fetch_add(1)) < t_.tiles;)
            kernels_.tile(t_, step, tile, scratch_[static_cast<size_t>(worker)]);
    }
    void blocks(uint32_t step) {
        const int count = static_cast<int>(tasks_.size());
        for (int task; (task = next_.fetch_add(1)) < count;)
            kernels_.task(t_, t_.p.steps[step], tasks_[static_cast<size_t>(task)]);
    }

    // Rows of the batch class by class, and the loss: between the phases, on one thread.
    double gather() {
        const int batch = t_.p.batch, classes = t_.p.classes;
        std::fill(t_.class_first, t_.class_first + classes + 2, 0);
        for (int i = 0; i < batch; ++i) ++t_.class_first[t_.label[i] + 1];
        for (int c = 0; c <= classes; ++c) t_.class_first[c + 1] += t_.class_first[c];
        std::vector<int32_t> &at = places_;
        at.assign(t_.class_first, t_.class_first + classes + 1);
        double loss = 0.0;
        for (int i = 0; i < batch; ++i) {
            t_.class_rows[at[static_cast<size_t>(t_.label[i])]++] = i;
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
        helpers.reserve(scratch_.size());
        std::mutex starting;
        std::condition_variable started;
        Gate *gate = nullptr;
        for (size_t worker = 1; worker < scratch_.size(); ++worker) {
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
                stopped_ = report(done, kernels_.answering(t_, answer));
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

    const TrainSet &set_;
    const TrainKernels &kernels_;
    const bool paired_;
    Training t_{};
    int64_t plain_ = 0, total_ = 0;
    std::vector<Part> parts_;
    std::vector<TrainMatrix> matrices_;
    std::vector<TrainVector> vectors_;
    std::vector<TrainSlot> slots_;
    std::vector<TrainTask> tasks_;
    std::vector<char *> scratch_;  // of each thread
    Memory memory_{nullptr, std::free};
    std::vector<int32_t> places_;
    float *importance_ = nullptr;
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
    return Trainer(train_baseline, params, Dtype::float32).numbers();
}

bool train(const TrainSet &set, const TrainParams &params, Dtype products, uint32_t first, uint32_t count,
           int threads, uint32_t every, const std::function<bool(uint32_t, double)> &report,
           const std::function<bool()> &poll) {
    if (count == 0) return true;
    return Trainer(set, params, products).run(first, count, threads, every, report, poll);
}

}  // namespace ldmlr
