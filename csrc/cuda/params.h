// The plain data of the CUDA kernels: device pointers, sizes, no ownership. Shapes in comments.
//
// Letters as in ../params.h. K' and H' are K and H rounded up to what the tier computes with, D' is D rounded
// up to a multiple of 64; padded entries of all matrices and vectors are zero. Python fills these structs
// (ldmlr/sampler/cuda/prepare.py and sampler.py, ldmlr/diffusion/fused_cuda.py) through ../bindings*.cpp.
//
// Matrices are bfloat16 in fragment order (fragment.cuh): blocks of 16 outputs by 16 inputs, 512 bytes,
// for each group of outputs the blocks of all inputs one after the other; or, for wgmma,
// images of shared memory (pack_swizzled in ldmlr/sampler/cuda/packing.py).
#pragma once

#include <cstdint>

#include "../params.h"
#include "../train_params.h"

namespace ldmlr::cuda {

// Rows of one call whose number of steps, network and transform are those of Model.
struct Model {
    int32_t dim, latent, hidden, layers, classes;      // D, K, H, L, C
    int32_t dim_padded, latent_padded, hidden_padded;  // D', K', H'
    int32_t num_steps;                                 // S
    int32_t folded;  // 1: `first` reads x, 0: it reads h (../params.h); always 1 in the fused tiers
    float guidance;  // f = f_null + guidance (f_class - f_null); 1: the class alone
    uint64_t seed;
    // Layered tiers: the matrices one by one. Fused tiers: `input` is the whole stream (fused.cuh).
    const void *input;   // K' -> H'
    const void *first;   // K' or H' -> H'
    const void *w1;      // L - 1 matrices H' -> H', layers 1 and up
    const void *w2;      // L matrices H' -> H'
    const void *output;  // H' -> K'
    // v = max(floor, mean[y] + scale z + psi e); the scale is a matrix or, where K = D, may be a diagonal.
    // row = v, or v (slope[y] + curve[y] v) where there are slopes.
    const void *matrix;       // 3 K' -> D': its high part, the high part again, its low part; or null
    const float *diagonal;    // [D'], or null
    const float *psi;         // [D'], or null
    const float *floor;       // [D'], -inf: none
    const float *slope;       // [C, D'], or null
    const float *curve;       // [C, D'], where there are slopes
    const float *gain;        // [S, C] factors of f, or null
    const float *mean;        // [C, D']
    const float *b_in;        // [H']
    const float *b2;          // [L, H']
    const float *b_out;       // [K']
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

// One call of the trainer.
struct TrainCall {
    TrainParams params;  // all arrays on the device
    int32_t device;
    int32_t graph_steps;  // steps that are launched as one graph; 0: every kernel by itself
    void *scratch;        // train_scratch_bytes(params) of device memory (train_buffers.h)
    double *losses;       // [steps of the call], on the host
    void *stream;         // cudaStream_t
};

}  // namespace ldmlr::cuda
