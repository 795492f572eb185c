// The plain data of the CUDA sampler: device pointers, sizes, no ownership. Shapes in comments.
//
// Letters as in ../params.h. D' and H' are D and H rounded up to what the tier computes with; padded
// entries of all matrices and vectors are zero. Python fills these structs (ldmlr/sampler/cuda/prepare.py and
// sampler.py) through ../bindings.cpp.
//
// Matrices are bfloat16 in fragment order (fragment.cuh): blocks of 16 outputs by 16 inputs, 512 bytes,
// for each group of outputs the blocks of all inputs one after the other; or, for wgmma,
// images of shared memory (pack_swizzled in ldmlr/sampler/cuda/packing.py).
#pragma once

#include <cstdint>

#include "../params.h"

namespace ldmlr::cuda {

// Rows of one call whose number of steps, network and transform are those of Model.
struct Model {
    int32_t dim, hidden, layers, classes;  // D, H, L, C
    int32_t dim_padded, hidden_padded;     // D', H'
    int32_t num_steps;                     // S
    int32_t folded;  // 1: `first` reads x, 0: it reads h (../params.h); always 1 in the fused tiers
    float guidance;  // f = f_null + guidance (f_class - f_null); 1: the class alone
    float floor;     // -inf: none
    uint64_t seed;
    // Layered tiers: the matrices one by one. Fused tiers: `input` is the whole stream (fused.cuh).
    const void *input;   // D' -> H'
    const void *first;   // D' or H' -> H'
    const void *w1;      // L - 1 matrices H' -> H', layers 1 and up
    const void *w2;      // L matrices H' -> H'
    const void *output;  // H' -> D'
    // [H', 3 D']: the lower triangle as high part, high part again, low part; null with a diagonal.
    const void *triangle;
    const float *diagonal;    // [D'], or null
    const float *mean;        // [C, D']
    const float *b_in;        // [H']
    const float *b2;          // [L, H']
    const float *b_out;       // [D']
    const float *bias_step;   // [S, L, H']
    const float *bias_class;  // [C + 1, L, H'], row C is the null class of guidance
    const StepRow *steps;     // [S]
};

// What changes from call to call.
struct Rows {
    uint64_t first_row;     // global number of row 0
    int64_t count;          // N
    const int64_t *labels;  // [N]
    void *out;              // [N, D] of out_dtype
    Dtype out_dtype;
};

// warpgroup and bulk are the layered tier by wgmma (sm_90a), with matrices in an order of their own; bulk is
// fed by the copy engine (warpgroup.cuh, bulk.cuh).
enum class Tier : int32_t { layered = 0, resident = 1, streamed = 2, warpgroup = 3, bulk = 4 };

inline bool by_wgmma(Tier tier) {
    return tier == Tier::warpgroup || tier == Tier::bulk;
}
inline bool in_layers(Tier tier) {
    return tier == Tier::layered || by_wgmma(tier);
}

// One call of the sampler.
struct Call {
    Model model;
    Rows rows;
    Tier tier;
    int32_t device;
    int32_t slab;        // in layers: rows that go through the layers together, a multiple of 256
    void *scratch;       // in layers: layered_scratch(model, slab) bytes of device memory
    void *stream;        // cudaStream_t
    uint64_t graph_key;  // in layers: calls with the same key, scratch and stream may share a graph
};

}  // namespace ldmlr::cuda
