// A product of the rows of a block with a matrix, in float32: the part of a step that takes its time.
//
// Rows lie in shared memory, at its start; the matrix [inputs, outputs] comes from the second-level cache, in
// which all matrices stay. A thread has a column: neighbours read neighbouring weights, each for all rows of
// the block, and the rows' values are the same for a warp. Where there are fewer columns than threads, the
// inputs are cut into parts, whose sums the epilogue adds. What a thread sums, and in what order, depends on
// the sizes alone.
//
// A thread has `train_depth` weights on their way while it multiplies as many others: 32 KB a block, which at
// a latency of some 300 cycles is more than the 64 bytes a cycle that the cache has for a multiprocessor.
#pragma once

#include "train_matrices.cuh"

namespace ldmlr::cuda {

// How the threads of a block share a product.
struct TrainParts {
    int columns;  // outputs, rounded up to whole warps
    int width;    // threads of a part
    int count;    // parts of the inputs
    int chunk;    // inputs of a part
    LDMLR_DEVICE TrainParts(int inputs, int outputs) {
        columns = (outputs + 31) / 32 * 32;
        width = columns < train_threads ? columns : train_threads;
        count = train_threads / width;
        chunk = ((inputs + count - 1) / count + train_depth - 1) / train_depth * train_depth;
    }
};

// Values of one row of an operand: its inputs rounded up, of which those behind the last are zero.
LDMLR_DEVICE int train_stride(int inputs) {
    return (inputs + train_depth - 1) / train_depth * train_depth;
}

// The sums of a product, in shared memory.
struct TrainSums {
    const float *p;
    int parts, columns, rows;
    LDMLR_DEVICE float at(int row, int column) const {
        float sum = p[row * columns + column];
        for (int part = 1; part < parts; ++part) sum += p[(part * rows + row) * columns + column];
        return sum;
    }
};

// Weights of one column for some inputs, on their way.
struct TrainWeights {
    float w[train_depth];
    LDMLR_DEVICE void load(const float *matrix, int k, int inputs, int outputs, int column) {
        const float *at = matrix + static_cast<int64_t>(k) * outputs + column;
        if (k + train_depth <= inputs) {
            LDMLR_UNROLL
            for (int i = 0; i < train_depth; ++i)
                w[i] = load_constant(at + static_cast<int64_t>(i) * outputs);
        } else {
            LDMLR_UNROLL
            for (int i = 0; i < train_depth; ++i)
                w[i] = k + i < inputs ? load_constant(at + static_cast<int64_t>(i) * outputs) : 0.0f;
        }
    }
    // sum[r] += the operand's values of these inputs times their weights.
    template <int rows>
    LDMLR_DEVICE void accumulate(const float *operand, int stride, float (&sum)[rows]) const {
        LDMLR_UNROLL
        for (int i = 0; i < train_depth; i += 4) {
            LDMLR_UNROLL
            for (int r = 0; r < rows; ++r) {
                const float4 x = *reinterpret_cast<const float4 *>(operand + r * stride + i);
                sum[r] = fmaf(x.x, w[i], sum[r]);
                sum[r] = fmaf(x.y, w[i + 1], sum[r]);
                sum[r] = fmaf(x.z, w[i + 2], sum[r]);
                sum[r] = fmaf(x.w, w[i + 3], sum[r]);
            }
        }
    }
};

// A function of its own: there are ten products in a step and the code of one fills some kilobytes.
template <int rows>
LDMLR_DEVICE_CALL void train_multiply(int sums_at, const float *matrix, int inputs, int outputs) {
    const float *operand = reinterpret_cast<const float *>(shared_memory());
    float *sums = reinterpret_cast<float *>(shared_memory() + sums_at);
    const TrainParts parts(inputs, outputs);
    const int part = thread_index() / parts.width, stride = train_stride(inputs);
    if (part >= parts.count) return;
    const int from = part * parts.chunk, to = from + parts.chunk < stride ? from + parts.chunk : stride;
    LDMLR_LOOP
    for (int column = thread_index() % parts.width; column < outputs; column += parts.width) {
        float sum[rows];
        LDMLR_UNROLL
        for (int r = 0; r < rows; ++r) sum[r] = 0.0f;
        TrainWeights now, next;
        if (from < to) now.load(matrix, from, inputs, outputs, column);
        LDMLR_LOOP
        for (int k = from; k < to; k += train_depth) {
            if (k + train_depth < to) next.load(matrix, k + train_depth, inputs, outputs, column);
            now.accumulate(operand + k, stride, sum);
            now = next;
        }
        LDMLR_UNROLL
        for (int r = 0; r < rows; ++r) sums[(part * rows + r) * parts.columns + column] = sum[r];
    }
}

}  // namespace ldmlr::cuda
