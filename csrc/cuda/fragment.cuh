// Who holds what: a warp's share of a matrix product, and the elementwise functions on it.
//
// A warp multiplies activations [16 rows, 16 inputs] with weights [16 inputs, 16 outputs] by two
// mma.m16n8k16. Lane 4 g + t (g < 8, t < 4) holds, of a product's 16 columns, positions 2t, 2t + 1 of each
// half of eight, for rows g and g + 8. Outputs are stored so that these four positions are the four
// adjacent columns 4t .. 4t + 3 (column_of): biases, states and results move as 16 bytes, and a lane's
// columns are one block of the counter noise.
//
// A Group packed to bfloat16 is at once the left operand of the next product over these 16 columns,
// if that product's weights count their inputs in the same positions ("chained" weights): activations
// then never leave the registers. Weights whose left operand comes from memory count inputs naturally.
//
// Weights: a block of 16 outputs by 16 inputs is 32 lanes x 16 bytes: the four registers
// {half 0: inputs 2t.., inputs 8 + 2t..; half 1: the same} of output g of the half
// (ldmlr/sampler/cuda/packing.py).
#pragma once

#include "../philox.h"
#include "params.h"
#include "ptx.cuh"

namespace ldmlr::cuda {

constexpr int block_words = 32;  // uint4 of a weight block

struct Operand {  // [16 rows, 16 inputs] of bfloat16
    uint32_t r[4];
};

struct Group {  // [16 rows, 16 columns] of float32: v[i] is columns 4t .. 4t + 3 of row g + 8 i
    float v[2][4];
};

struct Lane {
    int g, t;
    LDMLR_DEVICE explicit Lane(int lane) : g(lane / 4), t(lane % 4) {}
};

LDMLR_DEVICE void product(Group &c, const Operand &a, const uint4 &b) {
    mma(c.v[0][0], c.v[0][1], c.v[1][0], c.v[1][1], a.r, b.x, b.y);
    mma(c.v[0][2], c.v[0][3], c.v[1][2], c.v[1][3], a.r, b.z, b.w);
}

LDMLR_DEVICE Operand to_operand(const Group &c) {
    return {{pack_bfloat(c.v[0][0], c.v[0][1]), pack_bfloat(c.v[1][0], c.v[1][1]),
             pack_bfloat(c.v[0][2], c.v[0][3]), pack_bfloat(c.v[1][2], c.v[1][3])}};
}

// x = high + low with both parts bfloat16, to 16 bits of mantissa.
LDMLR_DEVICE float low_part(float x) {
    return x - bits_to_float(pack_bfloat(0.0f, x) & 0xffff0000u);
}

LDMLR_DEVICE void fill(Group &c, const float4 &b) {
    LDMLR_UNROLL
    for (int i = 0; i < 2; ++i) {
        c.v[i][0] = b.x;
        c.v[i][1] = b.y;
        c.v[i][2] = b.z;
        c.v[i][3] = b.w;
    }
}
LDMLR_DEVICE void add(float (&v)[4], const float4 &b) {
    v[0] += b.x;
    v[1] += b.y;
    v[2] += b.z;
    v[3] += b.w;
}
LDMLR_DEVICE float4 as_float4(const float (&v)[4]) {
    return {v[0], v[1], v[2], v[3]};
}
LDMLR_DEVICE const float4 &vector_at(const float *p) {
    return *reinterpret_cast<const float4 *>(p);
}
LDMLR_DEVICE float4 constant_at(const float *p) {
    return load_constant(reinterpret_cast<const float4 *>(p));
}

// silu in the units of ../params.h, t / (1 + 2^t), by the one special function
//
//     1 / (1 + 2^t) = 1/2 - 1/2 tanh(t ln2 / 2).
//
// Its error of 2^-11 counts where the tanh is near 1, so by |t| 2^-12 at most, and rounding to bfloat16
// leaves 2^-9 of a value. Two functions, 2^t and 1 / x, would take twice as long in the unit that binds.
LDMLR_DEVICE float silu(float t) {
    const float half = 0.5f * t;
    return fmaf(-half, tanh_fast(0.34657359f * t), half);
}
LDMLR_DEVICE void silu(float (&v)[4]) {
    LDMLR_UNROLL
    for (int i = 0; i < 4; ++i) v[i] = silu(v[i]);
}

// x0 = clamp(p x + q f), x = a x + b x0 + c x0_prev + s z. Comparisons, not fmin and fmax: NaN stays, so
// that a broken network shows instead of being clamped.
LDMLR_DEVICE float solver_step(const StepRow &s, float x, float f, float z, float &x0) {
    float estimate = fmaf(s.p, x, s.q * f);
    estimate = estimate > s.hi ? s.hi : estimate;
    estimate = estimate < s.lo ? s.lo : estimate;
    float next = fmaf(s.a, x, s.b * estimate);
    next = fmaf(s.c, x0, next);
    x0 = estimate;
    return fmaf(s.s, z, next);
}

// Normals of dims 4 block .. 4 block + 3 of a row; zero from `dim` on, so that padding stays zero.
LDMLR_DEVICE void normals4(uint64_t seed, uint64_t row, int block, int dim, uint32_t stream, uint32_t step,
                           float (&z)[4]) {
    if (4 * block >= dim) {
        z[0] = z[1] = z[2] = z[3] = 0.0f;
        return;
    }
    const Words words = row_words(seed, row, static_cast<uint32_t>(block), stream, step);
    box_muller(words.w[0], words.w[1], z[0], z[1]);
    box_muller(words.w[2], words.w[3], z[2], z[3]);
    LDMLR_UNROLL
    for (int i = 1; i < 4; ++i)
        if (4 * block + i >= dim) z[i] = 0.0f;
}

// f times the gain of a step and class.
LDMLR_DEVICE void multiply_gain(const Model &m, int step, int64_t label, float (&f)[4]) {
    const float gain = load_constant(m.gain + static_cast<int64_t>(step) * m.classes + label);
    LDMLR_UNROLL
    for (int e = 0; e < 4; ++e) f[e] *= gain;
}

// y += psi e for four columns of a row.
LDMLR_DEVICE void add_remainder(const Model &m, uint64_t row, int column, float (&y)[4]) {
    if (!m.psi) return;
    const float4 psi = constant_at(m.psi + column);
    float e[4];
    normals4(m.seed, row, column / 4, m.dim, remainder_stream, 0, e);
    y[0] = fmaf(psi.x, e[0], y[0]);
    y[1] = fmaf(psi.y, e[1], y[1]);
    y[2] = fmaf(psi.z, e[2], y[2]);
    y[3] = fmaf(psi.w, e[3], y[3]);
}

// v (slope + curve v) for four columns of a row of some class.
LDMLR_DEVICE void bend4(const Model &m, int64_t label, int column, float (&v)[4]) {
    const int64_t at = label * m.dim_padded + column;
    const float4 slope = constant_at(m.slope + at), curve = constant_at(m.curve + at);
    v[0] *= fmaf(curve.x, v[0], slope.x);
    v[1] *= fmaf(curve.y, v[1], slope.y);
    v[2] *= fmaf(curve.z, v[2], slope.z);
    v[3] *= fmaf(curve.w, v[3], slope.w);
}

// Four columns of a finished row, clamped to the floor, bent and rounded to the output's type.
LDMLR_DEVICE void write4(const Model &m, const Rows &rows, int64_t row, int column, const float (&value)[4]) {
    const float4 least = constant_at(m.floor + column);
    float v[4] = {value[0] < least.x ? least.x : value[0], value[1] < least.y ? least.y : value[1],
                  value[2] < least.z ? least.z : value[2], value[3] < least.w ? least.w : value[3]};
    if (m.slope) bend4(m, rows.labels[row], column, v);
    const int64_t at = row * m.dim + column;
    const bool whole = m.dim % 4 == 0;  // then rows start at a multiple of four values
    if (rows.out_dtype == Dtype::float32) {
        float *out = static_cast<float *>(rows.out) + at;
        if (whole && column < m.dim) {
            *reinterpret_cast<float4 *>(out) = as_float4(v);
        } else {
            LDMLR_UNROLL
            for (int i = 0; i < 4; ++i)
                if (column + i < m.dim) out[i] = v[i];
        }
        return;
    }
    uint16_t *out = static_cast<uint16_t *>(rows.out) + at;
    const bool half = rows.out_dtype == Dtype::float16;
    const uint32_t first = half ? pack_half(v[0], v[1]) : pack_bfloat(v[0], v[1]);
    const uint32_t second = half ? pack_half(v[2], v[3]) : pack_bfloat(v[2], v[3]);
    if (whole && column < m.dim) {
        *reinterpret_cast<uint2 *>(out) = {first, second};
    } else {
        const uint32_t parts[4] = {first, first >> 16, second, second >> 16};
        LDMLR_UNROLL
        for (int i = 0; i < 4; ++i)
            if (column + i < m.dim) out[i] = static_cast<uint16_t>(parts[i]);
    }
}

}  // namespace ldmlr::cuda
