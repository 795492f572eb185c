// What a training of the denoiser is told, on the CPU or on a device: plain data, in the letters of params.h,
// B rows of a batch. Arrays in C order, in the memory of whatever trains.
#pragma once

#include <cstdint>

namespace ldmlr {

constexpr int time_inputs = 64;  // cosines and sines of a time

// AdamW; its other numbers change from step to step.
constexpr float adam_beta1 = 0.9f, adam_beta2 = 0.999f, adam_epsilon = 1e-8f;

// Plain numbers of one step of AdamW and of the averages, made in Python in float64.
struct TrainStep {
    float keep;     // 1 - rate * weight decay
    float rate;     // rate / (1 - beta1^n)
    float root;     // 1 / sqrt(1 - beta2^n)
    float average;  // what the averages move towards the weights
};

// What Python says.
struct TrainParams {
    int32_t latent, hidden, layers, classes;
    int32_t batch;       // B
    int32_t share;       // rows in a row that have one time, a power of two up to 64
    int32_t tile;        // CPU: rows of a tile, of no influence on the state
    int32_t prediction;  // 0: v, 1: eps, 2: x0
    int32_t resolution;  // times are 0 .. resolution
    float answer;        // a unit answers where its standard deviation over a batch is above this
    uint64_t seed;
    uint64_t dropped;            // a label is dropped where a word is below
    const float *z;              // [N, K]
    const int64_t *order;        // [N] rows, class by class
    const int64_t *first;        // [C] place of the first row of a class in `order`
    const int64_t *rows;         // [C]
    const uint32_t *cumulative;  // [C] class c where the word is at most this, and above that of c - 1
    const float *alpha, *sigma;  // [resolution + 1]
    const float *features;       // [resolution + 1, time_inputs]
    const float *importance;     // [K] factors of the squared error
    const TrainStep *steps;      // [last step]
    // The state [4, P]: weights, first and second moments, averages, each one array after the other: input
    // weight and bias, L first weights, L first biases, L second weights, L second biases, output weight and
    // bias, time_in weight and bias, time_out weight [L H, H] and bias, classes [C + 1, L H].
    float *state;
    double *losses;  // [steps of the call]
};

}  // namespace ldmlr
