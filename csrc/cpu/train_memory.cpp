#include "train_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "pack.h"

namespace ldmlr {

namespace {

constexpr int64_t line = 64;
using Memory = std::unique_ptr<char, void (*)(void *)>;

// Zeros. Phases walk over some megabytes in strides of a row: with large pages, where the system has them
// to give, addresses are translated from the cache.
Memory zeros(size_t bytes) {
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

}  // namespace

TrainMemory::TrainMemory(const TrainParams &params, int panel, bool paired)
    : panel_(panel), paired_(paired), memory_(nullptr, std::free) {
    t_.p = params;
    t_.tiles = (params.batch + params.tile - 1) / params.tile;
    t_.times = params.tile / params.share;
    t_.room = params.tile + spare_rows;
    t_.time_room = t_.times + spare_rows;
    list_arrays();
    list_tasks();
}

// Matrices and vectors, and where each is in the plain state and in the padded one.
void TrainMemory::list_arrays() {
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
    t_.matrices = matrices_.data();
    t_.vectors = vectors_.data();
}

// Blocks of weights, each the work of one thread.
void TrainMemory::list_tasks() {
    for (size_t i = 0; i < matrices_.size(); ++i) {
        const TrainMatrix &m = matrices_[i];
        for (int column = 0; column < m.inputs; column += panel_width(m.inputs - column, panel_))
            for (int output = 0; output < m.outputs; output += block_outputs)
                tasks_.push_back({TrainTask::matrix, static_cast<int32_t>(i), output,
                                  std::min(block_outputs, m.outputs - output), column});
    }
    for (size_t i = 0; i < vectors_.size(); ++i)
        tasks_.push_back({TrainTask::vector, static_cast<int32_t>(i), 0, 0, 0});
    constexpr int together = 16;
    for (int c = 0; c <= t_.p.classes; c += together)
        tasks_.push_back({TrainTask::classes, 0, c, std::min(together, t_.p.classes + 1 - c), 0});
    t_.tasks = tasks_.data();
}

void TrainMemory::allocate(int threads, int64_t scratch) {
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
    for (int i = 0; i < threads; ++i) scratch_.push_back(reinterpret_cast<char *>(take(scratch + line)));
    memory_ = zeros(static_cast<size_t>(bytes));
    char *base = memory_.get();
    float **arrays[4] = {&t_.weights, &t_.moment1, &t_.moment2, &t_.average};
    for (int i = 0; i < 4; ++i) *arrays[i] = reinterpret_cast<float *>(base + state[i]);
    std::memcpy(base + importance, t_.p.importance, static_cast<size_t>(t_.p.latent) * 4);
    t_.p.importance = reinterpret_cast<float *>(base + importance);
    for (size_t i = 0; i < matrices_.size(); ++i) {
        matrices_[i].forward = base + packed[2 * i];
        matrices_[i].backward =
            paired_ ? base + packed[2 * i + 1] : reinterpret_cast<char *>(t_.weights + matrices_[i].offset);
    }
    for (size_t i = 0; i < slots_.size(); ++i) slots_[i].base = base + places[i];
    for (char *&at : scratch_) at = base + reinterpret_cast<uintptr_t>(at);
    t_.slots = slots_.data();
    t_.label = reinterpret_cast<int32_t *>(base + label);
    t_.class_rows = reinterpret_cast<int32_t *>(base + class_rows);
    t_.class_first = reinterpret_cast<int32_t *>(base + class_first);
    t_.row_loss = reinterpret_cast<double *>(base + row_loss);
}

void TrainMemory::move(bool in) {
    float *arrays[4] = {t_.weights, t_.moment1, t_.moment2, t_.average};
    for (int which = 0; which < 4; ++which)
        for (const Part &part : parts_) {
            float *plain = t_.p.state + which * plain_ + part.plain, *padded = arrays[which] + part.padded;
            for (int output = 0; output < part.outputs; ++output, plain += part.inputs)
                for (int column = 0; column < part.inputs;) {
                    const int width = part.padded_inputs ? panel_width(part.padded_inputs - column, panel_)
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

}  // namespace ldmlr
