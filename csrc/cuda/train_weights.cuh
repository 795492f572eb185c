// The second half of a training step: a block sums the gradient of some weights over the whole batch, and
// updates weights, moments and averages with it.
//
// No gradient is stored, and none is added up across blocks: a weight is the work of one thread, which sums
// over the rows in their order. Blocks are, in this order: one per class, one per tile of a matrix, and one
// for the loss, which also counts the step.
#pragma once

#include "train_matrices.cuh"

namespace ldmlr::cuda {

constexpr int update_threads = 256, update_warps = update_threads / 32;
constexpr int update_tile = 32;  // outputs and inputs of a tile; rows that are in shared memory at a time
constexpr int update_floats = update_tile * (update_tile + 1);
constexpr int update_shared_bytes = 2 * update_floats * 4;
static_assert(update_shared_bytes >= 8 * update_threads, "also the sums of the loss");

// A step's numbers and the arrays of the state.
struct TrainUpdate {
    float *weights, *moment1, *moment2, *average;
    TrainStep s;

    LDMLR_DEVICE TrainUpdate(const TrainParams &p, const TrainBuffers &b)
        : weights(p.state), s(p.steps[b.step[1]]) {
        const int64_t numbers = TrainPlaces(p).numbers;
        moment1 = weights + numbers;
        moment2 = moment1 + numbers;
        average = moment2 + numbers;
    }
    // Decoupled weight decay (Loshchilov & Hutter 2019), as in ../cpu/train_weights.inc; returns the weight.
    LDMLR_DEVICE float operator()(int64_t at, float gradient) const {
        const float m = moment1[at], mean = average[at];
        const float first = fmaf(1.0f - adam_beta1, gradient - m, m);
        const float second = fmaf(1.0f - adam_beta2, gradient * gradient, adam_beta2 * moment2[at]);
        const float size = fmaf(sqrtf(second), s.root, adam_epsilon);
        const float weight = s.keep * weights[at] - s.rate * first / size;
        moment1[at] = first;
        moment2[at] = second;
        weights[at] = weight;
        average[at] = fmaf(s.average, weight - mean, mean);
        return weight;
    }
};

LDMLR_BOTH inline int update_tiles(int size) {
    return (size + update_tile - 1) / update_tile;
}

// Four values of each thread: rows row0 .. row0 + 31 of an array [rows, width], columns column0 .. + 31.
struct TrainPiece {
    static constexpr int each = update_tile * update_tile / update_threads;
    float v[each];
    LDMLR_DEVICE void load(const float *from, int rows, int width, int row0, int column0) {
        LDMLR_UNROLL
        for (int i = 0; i < each; ++i) {
            const int at = thread_index() + i * update_threads;
            const int row = row0 + at / update_tile, column = column0 + at % update_tile;
            const bool there = row < rows && column < width;
            v[i] = there ? load_constant(from + static_cast<int64_t>(row) * width + column) : 0.0f;
        }
    }
    LDMLR_DEVICE void store(float *to) const {
        LDMLR_UNROLL
        for (int i = 0; i < each; ++i) to[thread_index() + i * update_threads] = v[i];
    }
};

// 32 outputs by 32 inputs of a matrix: a thread sums two by two, from rows that pass through shared memory
// while the next ones are on their way. With the first inputs go the biases of the outputs.
LDMLR_DEVICE void update_matrix(const TrainMatrix &m, const TrainBuffers &b, const TrainUpdate &update,
                                int tile) {
    float *delta = reinterpret_cast<float *>(shared_memory()), *input = delta + update_floats;
    const int across = update_tiles(m.inputs);
    const int output0 = tile / across * update_tile, input0 = tile % across * update_tile;
    const int thread = thread_index(), output = thread / 16 * 2, column = thread % 16 * 2;
    const bool has_biases = input0 == 0 && thread < update_tile;
    float sum[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}}, bias = 0.0f;
    TrainPiece d, x;
    d.load(m.delta, m.rows, m.outputs, 0, output0);
    x.load(m.input, m.rows, m.inputs, 0, input0);
    LDMLR_LOOP
    for (int row0 = 0; row0 < m.rows; row0 += update_tile) {
        d.store(delta);
        x.store(input);
        sync_block();
        if (row0 + update_tile < m.rows) {
            d.load(m.delta, m.rows, m.outputs, row0 + update_tile, output0);
            x.load(m.input, m.rows, m.inputs, row0 + update_tile, input0);
        }
        LDMLR_UNROLL
        for (int row = 0; row < update_tile; ++row) {
            const float2 of = *reinterpret_cast<const float2 *>(delta + row * update_tile + output);
            const float2 by = *reinterpret_cast<const float2 *>(input + row * update_tile + column);
            sum[0][0] = fmaf(of.x, by.x, sum[0][0]);
            sum[0][1] = fmaf(of.x, by.y, sum[0][1]);
            sum[1][0] = fmaf(of.y, by.x, sum[1][0]);
            sum[1][1] = fmaf(of.y, by.y, sum[1][1]);
        }
        if (has_biases)
            for (int row = 0; row < update_tile; ++row) bias += delta[row * update_tile + thread];
        sync_block();
    }
    // Through shared memory, so that neighbours update neighbours; one more column spares its banks.
    constexpr int stride = update_tile + 1;
    LDMLR_UNROLL
    for (int i = 0; i < 4; ++i) delta[(output + i / 2) * stride + column + i % 2] = sum[i / 2][i % 2];
    sync_block();
    LDMLR_UNROLL
    for (int i = 0; i < TrainPiece::each; ++i) {
        const int e = thread + i * update_threads, o = e / update_tile, k = e % update_tile;
        if (output0 + o >= m.outputs || input0 + k >= m.inputs) continue;
        float &value = delta[o * stride + k];
        value = update(m.weights + static_cast<int64_t>(output0 + o) * m.inputs + input0 + k, value);
    }
    if (has_biases && output0 + thread < m.outputs) update(m.bias + output0 + thread, bias);
    sync_block();
    LDMLR_UNROLL
    for (int i = 0; i < TrainPiece::each; ++i) {
        const int e = thread + i * update_threads, k = e / update_tile, o = e % update_tile;
        if (output0 + o >= m.outputs || input0 + k >= m.inputs) continue;
        b.transposed[m.weights + static_cast<int64_t>(input0 + k) * m.outputs + output0 + o] =
            delta[o * stride + k];
    }
}

// The biases of a class in all layers: the gradient is the sum over the rows with its label, which the block
// lists `update_threads` rows at a time.
LDMLR_DEVICE void update_class(const TrainParams &p, const TrainBuffers &b, const TrainUpdate &update,
                               int label) {
    int32_t *found = reinterpret_cast<int32_t *>(shared_memory()), *of_warp = found + update_threads;
    const int thread = thread_index(), warp = thread / 32, all = p.layers * p.hidden;
    const int64_t layer_rows = static_cast<int64_t>(p.batch) * p.hidden;
    const int64_t place = TrainPlaces(p).classes + static_cast<int64_t>(label) * all;
    LDMLR_LOOP
    for (int column0 = 0; column0 < all; column0 += update_threads) {
        const int column = column0 + thread;
        const float *delta = b.d_u + column / p.hidden * layer_rows + column % p.hidden;
        float sum = 0.0f;
        LDMLR_LOOP
        for (int row0 = 0; row0 < p.batch; row0 += update_threads) {
            const int row = row0 + thread;
            const bool own = row < p.batch && b.label[row] == label;
            const uint32_t votes = ballot(own);
            if (thread % 32 == 0) of_warp[warp] = count_bits(votes);
            sync_block();
            int start = 0, count = 0;
            LDMLR_UNROLL
            for (int i = 0; i < update_warps; ++i) {
                start += i < warp ? of_warp[i] : 0;
                count += of_warp[i];
            }
            if (own) found[start + count_bits(votes & ((1u << thread % 32) - 1))] = row;
            sync_block();
            if (column < all) {
                constexpr int together = 8;  // on their way at a time
                LDMLR_LOOP
                for (int i = 0; i < count; i += together) {
                    float v[together];
                    LDMLR_UNROLL
                    for (int e = 0; e < together; ++e)
                        v[e] = i + e < count
                                   ? load_constant(delta + static_cast<int64_t>(found[i + e]) * p.hidden)
                                   : 0.0f;
                    LDMLR_UNROLL
                    for (int e = 0; e < together; ++e) sum += v[e];
                }
            }
            sync_block();
        }
        if (column < all) update(place + column, sum);
    }
}

// The loss of the batch, and the step is counted.
LDMLR_DEVICE void finish_step(const TrainParams &p, const TrainBuffers &b, uint32_t first) {
    double *sums = reinterpret_cast<double *>(shared_memory());
    double sum = 0.0;
    for (int row = thread_index(); row < p.batch; row += update_threads) sum += b.row_loss[row];
    sums[thread_index()] = sum;
    sync_block();
    if (thread_index() != 0) return;
    sum = 0.0;
    for (int i = 0; i < update_threads; ++i) sum += sums[i];
    const uint32_t step = b.step[1];
    p.losses[step - first] = sum / (static_cast<double>(p.batch) * p.latent);
    b.step[0] = step + 1;
}

inline int update_blocks(const TrainParams &p, const TrainBuffers &b) {
    int blocks = p.classes + 1;
    for (int i = 0; i < train_matrices(p); ++i) {
        const TrainMatrix m = train_matrix(p, b, i);
        blocks += update_tiles(m.outputs) * update_tiles(m.inputs);
    }
    return blocks + 1;
}

// `first` is the step whose loss is losses[0].
LDMLR_KERNEL void LDMLR_BOUNDS(update_threads, 2)
    train_weights_kernel(const TrainParams p, const TrainBuffers b, const uint32_t first) {
    const TrainUpdate update(p, b);
    int rest = block_x();
    if (rest <= p.classes) return update_class(p, b, update, rest);
    rest -= p.classes + 1;
    LDMLR_LOOP
    for (int i = 0; i < train_matrices(p); ++i) {
        const TrainMatrix m = train_matrix(p, b, i);
        const int tiles = update_tiles(m.outputs) * update_tiles(m.inputs);
        if (rest < tiles) return update_matrix(m, b, update, rest);
        rest -= tiles;
    }
    finish_step(p, b, first);
}

// Before the first step: all matrices the other way round, and the number of the step. A row of blocks has a
// matrix.
LDMLR_KERNEL void LDMLR_BOUNDS(update_threads, 2)
    train_start_kernel(const TrainParams p, const TrainBuffers b, const uint32_t first) {
    const TrainMatrix m = train_matrix(p, b, block_y());
    const int64_t numbers = static_cast<int64_t>(m.outputs) * m.inputs;
    const int64_t threads = static_cast<int64_t>(blocks_x()) * update_threads;
    for (int64_t i = static_cast<int64_t>(block_x()) * update_threads + thread_index(); i < numbers;
         i += threads)
        b.transposed[m.weights + i % m.inputs * m.outputs + i / m.inputs] = p.state[m.weights + i];
    if (block_x() == 0 && block_y() == 0 && thread_index() == 0) b.step[0] = first;
}

// Which units of the last activation answer to their input: those that differ between the rows of the batch.
LDMLR_KERNEL void LDMLR_BOUNDS(update_threads, 1)
    train_answers_kernel(const TrainParams p, const TrainBuffers b) {
    const int column = block_x() * update_threads + thread_index();
    if (column >= p.hidden) return;
    // Around the first row, so that nothing is lost where all are nearly alike.
    const double origin = static_cast<double>(b.a[column]), rows = p.batch, least = p.answer;
    double sum = 0.0, square = 0.0;
    for (int64_t row = 0; row < p.batch; ++row) {
        const double d = static_cast<double>(b.a[row * p.hidden + column]) - origin;
        sum += d;
        square += d * d;
    }
    b.answers[column] = square - sum * sum / rows > least * least * (rows - 1.0);
}

}  // namespace ldmlr::cuda
