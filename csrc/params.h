// The plain data that kernels see: no Python, no torch, no ownership. Shapes in comments.
//
// Letters: N rows, D feature dim, K latent axes, H hidden width, L residual layers, S solver steps, C
// classes. The network and the solver work on K axes, of which the last step makes D features; often K = D.
// D', K' and H' are D, K and H rounded up to `padding`. Padded entries of weights and biases are zero,
// so that padded columns stay zero all the way and never reach the output.
//
// The network is stored in the units of its activation: with kappa = -log2(e), the kernel keeps
// h' = kappa h, and silu(x) becomes t / (1 + 2^t) with t = kappa x. W_in, the biases and W_out
// carry the factor; W1 and W2 do not change (ldmlr/sampler/units.py, in float64).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ldmlr {

constexpr int padding = 16;

// Internal linkage, like everything that instruction-set files use: see cpu/denoise_avx512.cpp.
static constexpr int padded(int size) {
    return (size + padding - 1) / padding * padding;
}

enum class Dtype : int32_t { float32 = 0, float16 = 1, bfloat16 = 2, int8 = 3 };

// x0 = clamp(p x + q f, lo, hi);  x_next = a x + b x0 + c x0_prev + s z
struct StepRow {
    float p, q, lo, hi, a, b, c, s;
};

// h = W_in x + b_in;  h += W2_l silu(W1_l h + bias_step[s, l] + bias_class[y, l]) + b2_l, l < L;
// f = W_out silu(h) + b_out.  Matrices are packed for one instruction set and type (cpu/pack.h).
struct Denoiser {
    int32_t latent, hidden, layers, classes;
    // 1: `first` is W1_0 W_in and reads x (K' inputs), cheaper where K < H; W1_0 b_in is in bias_step.
    // 0: `first` is W1_0 and reads h (H' inputs).
    int32_t folded;
    const void *input;        // K' -> H'
    const void *first;        // K' or H' -> H'
    const void *w1;           // L - 1 matrices H' -> H', layers 1 and up
    const void *w2;           // L matrices H' -> H'
    const void *output;       // H' -> K'
    const float *b_in;        // [H']
    const float *b2;          // [L, H']
    const float *b_out;       // [K']
    const float *bias_step;   // [S, L, H']
    const float *bias_class;  // [C + 1, L, H'], row C is the null class of guidance
    // Factors that make operands integers of int8: of x, of h and u of each layer, of the last
    // activation, [2 L + 2]; null for other types.
    const float *quantise;
};

// v = max(floor, mean[y] + scale z + psi e), e standard normals; the widening k is a factor of scale and psi.
// row = v, or v (slope[y] + curve[y] v) where there are slopes.
struct Transform {
    int32_t dim;
    int32_t triangular;     // 1: `matrix` is a lower triangle, K = D
    const float *mean;      // [C, D']
    const float *diagonal;  // [D'], K = D; or null
    const void *matrix;     // packed float32 K' -> D', or null with a diagonal
    const float *psi;       // [D'], or null
    const float *floor;     // [D'], -inf: none
    const float *slope;     // [C, D'], or null
    const float *curve;     // [C, D'], where there are slopes
};

struct SampleParams {
    Denoiser net;
    Transform transform;
    const StepRow *steps;  // [S]
    int32_t num_steps;
    float guidance;     // f = f_null + guidance (f_class - f_null); 1: the class alone
    const float *gain;  // [S, C] factors of f, or null
    uint64_t seed;
    uint64_t first_row;     // global number of row 0
    int64_t rows;           // N
    const int64_t *labels;  // [N]
    void *out;              // [N, D] of out_dtype
    Dtype out_dtype;
};

// Standard normals for rows first_row .. first_row + rows - 1, [rows, dim] (philox.h).
struct NoiseParams {
    uint64_t seed;
    uint64_t first_row;
    int64_t rows;
    int64_t dim;
    int64_t stride;  // floats from one row of the output to the next
    uint32_t stream;
    uint32_t step;
};

// One solver step of rows whose network output was computed elsewhere; all arrays [rows, dim].
struct StepParams {
    StepRow row;
    float *x;        // x, overwritten by x_next
    float *x0;       // x0_prev, overwritten by x0
    const float *f;  // network output at x
    int64_t rows, dim;
    uint64_t seed, first_row;
    uint32_t step;  // number of the step, for its noise
};

// Asked between solver steps; true ends the tile early.
struct Stop {
    bool (*asked)(void *context);
    void *context;
};

}  // namespace ldmlr
