// Loss and gradient of softmax regression over rows: plain data, and the functions of an instruction set.
//
//     loss = sum_i w_i (logsumexp(W x_i + b) - (W x_i + b)[y_i])
//
// Rows are worked on in blocks. First tiles of rows: gathered, mixed or standardised, multiplied with the
// weights, turned into the errors w_i (softmax - one-hot); rows and errors are left in the slots of the
// block. Then parts of the gradient: each is the work of one thread, which sums it over the rows of the block
// in their order. So logits are held for a tile alone, no gradient is added up across threads, and nothing
// depends on their number. N rows in memory, n of the call, D numbers of a row, C classes; D' and C' as in
// params.h.
#pragma once

#include <cstdint>

#include "../params.h"

namespace ldmlr {

// Rows of a tile: a multiple of all row groups of a product (12, 6 and 2), and even, as bfloat16 is kept in
// pairs of rows. A group may run over the last row.
constexpr int softmax_rows = 48, softmax_spare = 12;
// Classes of a part of the gradient, a multiple of the same groups and of `padding`.
constexpr int softmax_classes = 48;

// What Python says. Arrays in C order.
struct SoftmaxParams {
    int64_t rows;  // n
    int32_t dim, classes;
    const float *features;     // [N, D]
    const int64_t *labels;     // [N]
    const int64_t *chosen;     // [n]: which rows; null: the first n
    const int64_t *partner;    // [n]: each row is share x + (1 - share) of its partner's; null: x itself
    const float *share;        // [n]
    const float *mean;         // [D]: rows are (x - mean) * scale; null: as they are
    const float *scale;        // [D]
    const float *row_weights;  // [n], of the rows of the call; null: 1 / n each
    const float *weight;       // [C, D]
    const float *bias;         // [C]
    float *gradient;           // [C, D], written
    float *bias_gradient;      // [C], written
};

// What the functions below see.
struct Softmax {
    SoftmaxParams p;
    int32_t block;      // rows of a block, a multiple of softmax_rows
    char *packed;       // weights, for rows of D' (pack.h)
    float *bias;        // [C'], -1e30 beyond C
    char *x, *errors;   // slots: panels of columns, in each unit after unit of the block (train.h)
    double *bias_sums;  // [C']
    double *row_loss;   // [block]
};

// A block of the rows: `first` .. `first + count - 1`.
struct SoftmaxBlock {
    int64_t first;
    int32_t count;
};

// The functions of one type of products.
struct SoftmaxKernels {
    int64_t (*tile_scratch)(const Softmax &);
    // Classes 16 part .. 16 part + 15 of the weights into `packed`.
    void (*pack)(const Softmax &, int part, void *scratch);
    // Rows softmax_rows tile .. of a block.
    void (*tile)(const Softmax &, const SoftmaxBlock &, int tile, void *scratch);
    // Part of the gradient: adds to it, or writes it for the first block.
    void (*part)(const Softmax &, const SoftmaxBlock &, int part);
};

struct SoftmaxSet {
    int panel;
    SoftmaxKernels float32;
    SoftmaxKernels bfloat16;  // null where the instruction set has no such product
};

}  // namespace ldmlr
