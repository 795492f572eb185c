// The first half of a training step: a block takes `train_rows` rows of one time from their draws to their
// deltas, and leaves what gradients are products of.
//
// Rows of a block stay in its shared memory from one product to the next; what the second half or the way
// back needs is written to memory on the way. Every sum is of one block, in an order that follows from the
// sizes: the state does not depend on the number of multiprocessors. Formulas are those of
// ../cpu/train_tile.inc and ../cpu/train_epilogues.inc, in float32.
#pragma once

#include "../train_draw.h"
#include "fragment.cuh"
#include "train_product.cuh"

namespace ldmlr::cuda {

// silu(x) and its derivative.
LDMLR_DEVICE float train_silu(float x, float &slope) {
    const float gate = 1.0f / (1.0f + exp2f(x * -0x1.715476p+0f));  // -log2(e) x
    const float value = x * gate;
    slope = fmaf(gate, 1.0f - value, value);
    return value;
}

// A block at work. Every function ends with its results written and not yet seen by all.
struct TrainBlock {
    const TrainParams &p;
    const TrainBuffers &b;
    const TrainPlaces at;
    float *operand;
    double *lanes;   // [train_rows, train_lanes]
    int64_t *row;    // [train_rows] drawn rows of z
    int32_t *label;  // [train_rows]
    int64_t first;   // row of the batch
    int count;       // rows that there are
    int time;        // drawn
    uint32_t step;

    LDMLR_DEVICE TrainBlock(const TrainParams &p, const TrainBuffers &b)
        : p(p),
          b(b),
          at(p),
          operand(reinterpret_cast<float *>(shared_memory())),
          lanes(reinterpret_cast<double *>(shared_memory() + b.lanes_at)),
          row(reinterpret_cast<int64_t *>(shared_memory() + b.drawn_at)),
          label(reinterpret_cast<int32_t *>(row + train_rows)),
          first(static_cast<int64_t>(block_x()) * train_rows),
          count(p.batch - first < train_rows ? static_cast<int>(p.batch - first) : train_rows),
          step(b.step[0]) {
        time = draw_time(p, step, block_x());
    }

    LDMLR_DEVICE const float *weights(int64_t place) const { return p.state + place; }
    LDMLR_DEVICE int64_t biases() const { return static_cast<int64_t>(p.layers) * p.hidden; }
    // Of a row of the block in an array [B, width], of which there is one per layer.
    LDMLR_DEVICE int64_t place(int r, int width, int layer = 0) const {
        return (static_cast<int64_t>(layer) * p.batch + first + r) * width;
    }

    // The operand times a matrix, forward with the matrix turned round, backward with it as it is.
    template <int rows>
    LDMLR_DEVICE TrainSums multiply(const float *matrix, int inputs, int outputs) const {
        sync_block();
        train_multiply<rows>(b.sums_at, matrix, inputs, outputs);
        sync_block();
        const TrainParts parts(inputs, outputs);
        return {reinterpret_cast<const float *>(shared_memory() + b.sums_at), parts.count, parts.columns,
                rows};
    }
    LDMLR_DEVICE TrainSums forward(int64_t matrix, int inputs, int outputs) const {
        return multiply<train_rows>(b.transposed + matrix, inputs, outputs);
    }
    LDMLR_DEVICE TrainSums backward(int64_t matrix, int outputs, int inputs) const {
        return multiply<train_rows>(weights(matrix), outputs, inputs);
    }

    // The next operand, of `rows` rows of `width`: value(row, column) where there is such a row.
    template <int rows = train_rows, class Value>
    LDMLR_DEVICE void next(int width, const Value &value) const {
        const int stride = train_stride(width), there = rows == 1 ? 1 : count;
        LDMLR_LOOP
        for (int i = thread_index(); i < rows * stride; i += train_threads) {
            const int r = i / stride, column = i % stride;
            operand[i] = r < there && column < width ? value(r, column) : 0.0f;
        }
    }

    LDMLR_DEVICE void draw() const;
    LDMLR_DEVICE void biases_of_time() const;
    LDMLR_DEVICE void noisy_rows() const;
    LDMLR_DEVICE void forward_layers() const;
    LDMLR_DEVICE void error() const;
    LDMLR_DEVICE void backward_layers() const;
    LDMLR_DEVICE void backward_time() const;
};

LDMLR_DEVICE void TrainBlock::draw() const {
    const int r = thread_index();
    if (r >= count) return;
    const Draw drawn = draw_row(p, step, first + r);
    row[r] = drawn.row;
    label[r] = drawn.label;
    b.label[first + r] = drawn.label;
}

// The biases that the time of the block gives every layer, b1 of the layer among them.
LDMLR_DEVICE void TrainBlock::biases_of_time() const {
    const int hidden = p.hidden;
    const int64_t t = block_x();
    next<1>(time_inputs, [&](int, int column) {
        const float feature = p.features[static_cast<int64_t>(time) * time_inputs + column];
        b.t[t * time_inputs + column] = feature;
        return feature;
    });
    const TrainSums in = multiply<1>(b.transposed + at.time_in, time_inputs, hidden);
    const float *bias = weights(at.time_in + static_cast<int64_t>(hidden) * time_inputs);
    next<1>(hidden, [&](int, int column) {
        const float value = train_silu(in.at(0, column) + bias[column], b.slope_t[t * hidden + column]);
        b.t_u[t * hidden + column] = value;
        return value;
    });
    const int64_t all = biases();
    const TrainSums out = multiply<1>(b.transposed + at.time_out, hidden, static_cast<int>(all));
    const float *own = weights(at.of_layer(p, at.time_out, p.layers));
    const float *first_bias = weights(at.of_layer(p, at.first, p.layers));
    for (int i = thread_index(); i < all; i += train_threads)
        b.bias[t * all + i] = out.at(0, i) + (own[i] + first_bias[i]);
}

// Rows with noise on them, and what the network should say of them: four numbers a thread, which are a block
// of the counter.
LDMLR_DEVICE void TrainBlock::noisy_rows() const {
    const int width = p.latent, stride = train_stride(width);
    const float alpha = p.alpha[time], sigma = p.sigma[time];
    LDMLR_LOOP
    for (int i = thread_index(); i < train_rows * stride / 4; i += train_threads) {
        const int r = i / (stride / 4), block = i % (stride / 4);
        float noisy[4] = {0.0f, 0.0f, 0.0f, 0.0f}, noise[4];
        if (r < count && 4 * block < width) {
            normals4(p.seed, static_cast<uint64_t>(first + r), block, width, train_noise_stream, step, noise);
            const float *z = p.z + row[r] * width + 4 * block;
            const int64_t to = place(r, width) + 4 * block;
            LDMLR_UNROLL
            for (int d = 0; d < 4; ++d) {
                if (4 * block + d >= width) break;
                const float x0 = z[d], e = noise[d];
                noisy[d] = fmaf(alpha, x0, sigma * e);
                b.x[to + d] = noisy[d];
                b.target[to + d] = p.prediction == 0 ? alpha * e - sigma * x0 : p.prediction == 1 ? e : x0;
            }
        }
        *reinterpret_cast<float4 *>(operand + r * stride + 4 * block) = as_float4(noisy);
    }
}

LDMLR_DEVICE void TrainBlock::forward_layers() const {
    const int hidden = p.hidden;
    const TrainSums in = forward(at.input, p.latent, hidden);
    const float *bias = weights(at.input + static_cast<int64_t>(hidden) * p.latent);
    next(hidden,
         [&](int r, int column) { return b.h[place(r, hidden) + column] = in.at(r, column) + bias[column]; });
    LDMLR_LOOP
    for (int l = 0; l < p.layers; ++l) {
        const TrainSums inner = forward(at.of_layer(p, at.first, l), hidden, hidden);
        const int64_t of_layer = static_cast<int64_t>(l) * hidden;
        const float *of_time = b.bias + block_x() * biases() + of_layer;
        const float *of_class = weights(at.classes) + of_layer;
        next(hidden, [&](int r, int column) {
            const float begin = of_time[column] + of_class[label[r] * biases() + column];
            const int64_t to = place(r, hidden, l) + column;
            return b.u[to] = train_silu(inner.at(r, column) + begin, b.slope_u[to]);
        });
        const TrainSums outer = forward(at.of_layer(p, at.second, l), hidden, hidden);
        const float *second = weights(at.bias_of_layer(p, at.second, l));
        const bool last = l + 1 == p.layers;
        next(hidden, [&](int r, int column) {
            const float h = outer.at(r, column) + (b.h[place(r, hidden, l) + column] + second[column]);
            const int64_t to = place(r, hidden) + column;
            return last ? b.a[to] = train_silu(h, b.slope_a[to]) : b.h[place(r, hidden, l + 1) + column] = h;
        });
    }
}

// The error, its square, and the delta of the output.
LDMLR_DEVICE void TrainBlock::error() const {
    const int width = p.latent;
    const TrainSums out = forward(at.output, p.hidden, width);
    const float *bias = weights(at.output + static_cast<int64_t>(width) * p.hidden);
    const float scale = 2.0f / (static_cast<float>(p.batch) * static_cast<float>(width));
    float *squares = reinterpret_cast<float *>(shared_memory() + b.sums_at);
    next(width, [&](int r, int column) {
        const int64_t to = place(r, width) + column;
        const float e = out.at(r, column) + bias[column] - b.target[to];
        const float weighted = e * p.importance[column];
        squares[r * out.columns + column] = e * weighted;  // in the place of the sums that are this thread's
        return b.d_out[to] = weighted * scale;
    });
    sync_block();
    const int r = thread_index() / train_lanes, lane = thread_index() % train_lanes;
    double sum = 0.0;
    if (r < count)
        for (int column = lane; column < width; column += train_lanes)
            sum += static_cast<double>(squares[r * out.columns + column]);
    lanes[thread_index()] = sum;
    sync_block();
    if (thread_index() >= count) return;
    sum = 0.0;
    for (int i = 0; i < train_lanes; ++i) sum += lanes[thread_index() * train_lanes + i];
    b.row_loss[first + thread_index()] = sum;
}

LDMLR_DEVICE void TrainBlock::backward_layers() const {
    const int hidden = p.hidden, stride = train_stride(hidden);
    const TrainSums last = backward(at.output, p.latent, hidden);
    next(hidden, [&](int r, int column) {
        const int64_t to = place(r, hidden) + column;
        return b.d_h[place(r, hidden, p.layers) + column] = last.at(r, column) * b.slope_a[to];
    });
    LDMLR_LOOP
    for (int l = p.layers - 1; l >= 0; --l) {
        const TrainSums inner = backward(at.of_layer(p, at.second, l), hidden, hidden);
        next(hidden, [&](int r, int column) {
            const int64_t to = place(r, hidden, l) + column;
            return b.d_u[to] = inner.at(r, column) * b.slope_u[to];
        });
        const TrainSums outer = backward(at.of_layer(p, at.first, l), hidden, hidden);
        // The operand is still the delta of the biases; rows that there are not are zero.
        for (int column = thread_index(); column < hidden; column += train_threads) {
            float sum = 0.0f;
            LDMLR_UNROLL
            for (int r = 0; r < train_rows; ++r) sum += operand[r * stride + column];
            b.d_bias[block_x() * biases() + static_cast<int64_t>(l) * hidden + column] = sum;
        }
        sync_block();
        next(hidden, [&](int r, int column) {
            const float d = outer.at(r, column) + b.d_h[place(r, hidden, l + 1) + column];
            return b.d_h[place(r, hidden, l) + column] = d;
        });
    }
}

// From the biases of all layers back to the network of times.
LDMLR_DEVICE void TrainBlock::backward_time() const {
    const int hidden = p.hidden, all = static_cast<int>(biases());
    const int64_t t = block_x();
    sync_block();
    next<1>(all, [&](int, int column) { return b.d_bias[t * all + column]; });
    const TrainSums sums = multiply<1>(weights(at.time_out), all, hidden);
    for (int column = thread_index(); column < hidden; column += train_threads) {
        const int64_t to = t * hidden + column;
        b.d_t[to] = sums.at(0, column) * b.slope_t[to];
    }
}

LDMLR_KERNEL void LDMLR_BOUNDS(train_threads, 1)
    train_rows_kernel(const TrainParams p, const TrainBuffers b) {
    const TrainBlock block(p, b);
    block.draw();
    block.biases_of_time();
    block.noisy_rows();
    block.forward_layers();
    block.error();
    block.backward_layers();
    block.backward_time();
    if (block_x() == 0 && thread_index() == 0) b.step[1] = block.step;
}

}  // namespace ldmlr::cuda
