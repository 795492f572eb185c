// Where the arrays of the state are, and what the gradient of each matrix is a product of.
#pragma once

#include "ptx.cuh"
#include "train_buffers.h"

namespace ldmlr::cuda {

// Places in each of the state's four arrays, in the order of TrainParams::state.
struct TrainPlaces {
    int64_t input, first, second, output, time_in, time_out, classes, numbers;
    LDMLR_BOTH explicit TrainPlaces(const TrainParams &p) {
        const int64_t latent = p.latent, hidden = p.hidden, layers = p.layers;
        input = 0;
        first = input + hidden * latent + hidden;
        second = first + layers * (hidden * hidden + hidden);
        output = second + layers * (hidden * hidden + hidden);
        time_in = output + latent * hidden + latent;
        time_out = time_in + hidden * time_inputs + hidden;
        classes = time_out + layers * hidden * hidden + layers * hidden;
        numbers = classes + (static_cast<int64_t>(p.classes) + 1) * layers * hidden;
    }
    // A matrix of a layer in front of whose biases are the matrices of all layers; its biases.
    LDMLR_BOTH static int64_t of_layer(const TrainParams &p, int64_t all, int layer) {
        return all + static_cast<int64_t>(layer) * p.hidden * p.hidden;
    }
    LDMLR_BOTH static int64_t bias_of_layer(const TrainParams &p, int64_t all, int layer) {
        return of_layer(p, all, p.layers) + static_cast<int64_t>(layer) * p.hidden;
    }
};

// A matrix [outputs, inputs] with its biases, whose gradients are sums over rows of a batch, or over times:
// of the products of `delta` [rows, outputs] and `input` [rows, inputs], and of `delta` alone.
struct TrainMatrix {
    int64_t weights, bias;  // places
    int32_t outputs, inputs, rows;
    const float *delta, *input;
};

LDMLR_BOTH inline int train_matrices(const TrainParams &p) {
    return 2 * p.layers + 4;
}

LDMLR_BOTH inline TrainMatrix train_matrix(const TrainParams &p, const TrainBuffers &b, int number) {
    const TrainPlaces at(p);
    const int latent = p.latent, hidden = p.hidden, layers = p.layers, batch = p.batch;
    const int times = (batch + train_rows - 1) / train_rows;
    const int64_t whole = static_cast<int64_t>(batch) * hidden;
    if (number < 2 * layers) {
        const int l = number / 2;
        if (number % 2 == 0)
            return {at.of_layer(p, at.first, l),
                    at.bias_of_layer(p, at.first, l),
                    hidden,
                    hidden,
                    batch,
                    b.d_u + l * whole,
                    b.h + l * whole};
        return {at.of_layer(p, at.second, l),
                at.bias_of_layer(p, at.second, l),
                hidden,
                hidden,
                batch,
                b.d_h + (l + 1) * whole,
                b.u + l * whole};
    }
    switch (number - 2 * layers) {
        case 0:
            return {at.input, at.input + static_cast<int64_t>(hidden) * latent, hidden, latent, batch, b.d_h,
                    b.x};
        case 1:
            return {
                at.output, at.output + static_cast<int64_t>(latent) * hidden, latent, hidden, batch, b.d_out,
                b.a};
        case 2:
            return {at.time_in, at.time_in + static_cast<int64_t>(hidden) * time_inputs,
                    hidden,     time_inputs,
                    times,      b.d_t,
                    b.t};
        default:
            return {
                at.time_out, at.of_layer(p, at.time_out, layers), layers * hidden, hidden, times, b.d_bias,
                b.t_u};
    }
}

}  // namespace ldmlr::cuda
