// What a training is: plain data, and the functions of an instruction set that work on it.
//
// A step has two phases. First tiles of rows: draws, forward, loss and backward; what a gradient of a
// weight is a product of (inputs of the layers and deltas of their outputs) is left in the slots of the
// batch. Then blocks of weights: each is the work of one thread, which sums its gradient over the rows
// in their order, all of the batch, and updates weights, moments and averages while they are in its
// cache. So no gradient is ever stored or added up across threads, and the model does not depend on their
// number. Letters as in params.h, B rows of a batch.
#pragma once

#include <cstdint>

#include "../params.h"
#include "../train_draw.h"
#include "../train_params.h"

namespace ldmlr {

// A tile has a multiple of so many rows, at most so many, and room for some more: a group of a product may
// run over the last one.
constexpr int tile_step = 64, most_rows = 256, spare_rows = 12;
constexpr int block_outputs = 32;  // outputs of a block of weights

// One operand of gradients for all rows: tile by tile, row by row (float32) or pair by pair of rows
// (bfloat16), in units of 4 bytes.
struct TrainSlot {
    char *base;
    int64_t tile_bytes;
    int32_t stride;  // units from one row or pair to the next
};

// A matrix of weights: panels of inputs, in each all outputs and for each of those the inputs side by side:
// what `product` takes for deltas. `forward` is packed for inputs, `backward` is the matrix itself for
// float32.
struct TrainMatrix {
    int64_t offset;  // in the arrays of the state
    int32_t outputs, inputs;
    int32_t delta, input;  // slots
    int32_t timed;         // 1: its slots have rows by time
    char *forward, *backward;
};

struct TrainVector {
    int64_t offset;
    int32_t size;
    int32_t delta;
    int32_t timed;
};

struct TrainTask {
    enum Kind : int32_t { matrix, vector, classes } kind;
    int32_t item;          // which matrix or vector
    int32_t first, count;  // outputs of a matrix, classes
    int32_t column;        // first input of a panel
};

// What the functions below see.
struct Training {
    TrainParams p;
    int32_t tiles, times;                          // tiles of the batch; times of a whole tile
    int32_t room, time_room;                       // of a tile, with spare rows
    float *weights, *moment1, *moment2, *average;  // padded, [total] each
    const TrainMatrix *matrices;  // input, first, second, output, time_in, time_out of each layer
    const TrainVector *vectors;   // input, first, second, output, time_in, time_out of each layer
    const TrainSlot *slots;
    const TrainTask *tasks;
    int64_t class_offset;
    int32_t *label;        // [tiles * tile]
    int32_t *class_rows;   // rows of the batch, class by class
    int32_t *class_first;  // [C + 2]
    double *row_loss;      // [B]
};

// Numbers of the slots of L layers.
struct Slots {
    int layers;
    constexpr int x() const { return 0; }
    constexpr int h(int l) const { return 1 + l; }
    constexpr int u(int l) const { return 1 + layers + l; }
    constexpr int a() const { return 1 + 2 * layers; }
    constexpr int d_out() const { return 2 + 2 * layers; }
    constexpr int d_h(int l) const { return 3 + 2 * layers + l; }  // l = 0 .. L
    constexpr int d_u(int l) const { return 4 + 3 * layers + l; }
    constexpr int t() const { return 4 + 4 * layers; }
    constexpr int t_u() const { return 5 + 4 * layers; }
    constexpr int d_t() const { return 6 + 4 * layers; }
    constexpr int d_time(int l) const { return 7 + 4 * layers + l; }
    constexpr int count() const { return 7 + 5 * layers; }
    constexpr bool timed(int slot) const { return slot >= t(); }
};

// The functions of one type of products.
struct TrainKernels {
    int64_t (*tile_scratch)(const Training &);
    void (*tile)(const Training &, uint32_t step, int tile, void *scratch);
    void (*task)(const Training &, const TrainStep &, const TrainTask &);
    void (*pack)(const Training &, const TrainMatrix &);  // all of a matrix, from its weights
    // Share of the last activation's units that answer to their input.
    double (*answering)(const Training &);
};

struct TrainSet {
    const char *name;
    int panel;
    TrainKernels float32;
    TrainKernels bfloat16;  // null where the instruction set has no such product
};

}  // namespace ldmlr
