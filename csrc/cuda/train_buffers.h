// What a training keeps on the device besides its state: what the first half of a step leaves for the second
// (train_rows.cuh, train_weights.cuh), and the matrices a second time, the other way round.
//
// Letters as in ../params.h; B rows of a batch, of which `train_rows` in a row have one time, T times. Arrays
// are not padded. Sizes are computed here for Python too, so nothing in this file needs CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../params.h"
#include "../train_params.h"

namespace ldmlr::cuda {

constexpr int train_rows = 8;       // rows of a block, which have one time: TrainParams::share
constexpr int train_threads = 512;  // of a block of rows
constexpr int train_depth = 16;     // inputs that a thread has on their way at a time
constexpr int train_lanes = train_threads / train_rows;  // threads that sum the loss of a row

struct TrainBuffers {
    float *transposed;             // [P] every matrix as [inputs, outputs], where it is in the state
    float *x, *target, *d_out;     // [B, K] input, what the network should say, delta of what it says
    float *h, *u, *d_u, *slope_u;  // [L, B, H] inputs of a layer, of its second product; delta, slope of silu
    float *d_h;                    // [L + 1, B, H] deltas of the residual stream
    float *a, *slope_a;            // [B, H] silu of the last of it
    float *t;                      // [T, time_inputs]
    float *t_u, *slope_t, *d_t;    // [T, H]
    float *bias, *d_bias;          // [T, L H] biases by time, and their deltas
    double *row_loss;              // [B]
    int32_t *label;                // [B], C where it is dropped
    int32_t *answers;              // [H] 1 where a unit of `a` answers to its input
    // The number of the step: [0] is read by the first half and written by the second, which reads [1].
    uint32_t *step;
    int32_t sums_at, lanes_at, drawn_at;  // places in the shared memory of a block of rows, in bytes
    int32_t shared;                       // its bytes
};

// Numbers of each of the state's four arrays, P.
inline int64_t train_state_numbers(const TrainParams &p) {
    const int64_t k = p.latent, h = p.hidden, l = p.layers, c = p.classes;
    const int64_t ends = 2 * h * k + h + k, layers = 2 * l * (h * h + h);
    return ends + layers + time_inputs * h + h + l * h * h + l * h + (c + 1) * l * h;
}

inline int64_t train_round(int64_t size, int64_t step) {
    return (size + step - 1) / step * step;
}

// Places in the shared memory of a block of rows.
inline void place_train_shared(const TrainParams &p, TrainBuffers &b) {
    const int64_t widest = std::max({p.latent, p.hidden, time_inputs});
    const int64_t biases = static_cast<int64_t>(p.layers) * p.hidden;
    const int64_t operand =
        std::max(train_rows * train_round(widest, train_depth), train_round(biases, train_depth));
    const int64_t sums = std::max({train_rows * train_round(widest, 32), train_round(biases, 32),
                                   static_cast<int64_t>(train_threads) * train_rows});
    // Sizes that do not fit are refused; here they must not overflow.
    const int64_t lanes_at = 4 * (operand + sums), drawn_at = lanes_at + 8 * train_threads;
    const int64_t shared = std::min<int64_t>(drawn_at + 16 * train_rows, INT32_MAX);
    b.sums_at = static_cast<int32_t>(std::min<int64_t>(4 * operand, shared));
    b.lanes_at = static_cast<int32_t>(std::min(lanes_at, shared));
    b.drawn_at = static_cast<int32_t>(std::min(drawn_at, shared));
    b.shared = static_cast<int32_t>(shared);
}

// Lays out the buffers from `base`, which starts at a multiple of 256; returns the bytes used (base may be
// null).
inline int64_t place_train(const TrainParams &p, char *base, TrainBuffers &b) {
    const int64_t rows = p.batch, times = (rows + train_rows - 1) / train_rows;
    const int64_t latent = p.latent, hidden = p.hidden, layers = p.layers;
    int64_t used = 0;
    auto take = [&](auto *&pointer, int64_t count) {
        using T = std::remove_reference_t<decltype(*pointer)>;
        pointer = reinterpret_cast<T *>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(used));
        used += train_round(count * static_cast<int64_t>(sizeof(T)), 256);
    };
    take(b.transposed, train_state_numbers(p));
    for (float **array : {&b.x, &b.target, &b.d_out}) take(*array, rows * latent);
    for (float **array : {&b.h, &b.u, &b.d_u, &b.slope_u}) take(*array, layers * rows * hidden);
    take(b.d_h, (layers + 1) * rows * hidden);
    for (float **array : {&b.a, &b.slope_a}) take(*array, rows * hidden);
    take(b.t, times * time_inputs);
    for (float **array : {&b.t_u, &b.slope_t, &b.d_t}) take(*array, times * hidden);
    for (float **array : {&b.bias, &b.d_bias}) take(*array, times * layers * hidden);
    take(b.row_loss, rows);
    take(b.label, rows);
    take(b.answers, hidden);
    take(b.step, 2);
    place_train_shared(p, b);
    return used;
}

// Bytes of TrainCall::scratch, and of shared memory that a block needs.
inline int64_t train_scratch_bytes(const TrainParams &p) {
    TrainBuffers b;
    return place_train(p, nullptr, b);
}
inline int64_t train_shared_bytes(const TrainParams &p) {
    TrainBuffers b;
    place_train_shared(p, b);
    return b.shared;
}

}  // namespace ldmlr::cuda
