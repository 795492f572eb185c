// Counter-based standard normals: Philox4x32-10 and Box-Muller, for host and device.
//
// A normal is a pure function of (seed, row, step, dim). Nothing is carried from one to the
// next, so rows come out the same for any batch split, thread count, shard or resume point.
//
//   key     = seed (lo, hi)
//   counter = (dim / 4, row lo, row hi, stream << 24 | step)      row: the global row number
//   words (w0, w1) give normals 0 and 1 of the block of four, (w2, w3) give 2 and 3
//
// Every operation below is an integer operation, an IEEE product, a fused multiply-add or a
// square root: each rounds correctly, so CPU instruction sets, CUDA and the NumPy reference
// (ldmlr/sampler/noise.py) agree to the bit. Never compile this with contraction or fast-math.
//
// Known answers of philox4x32 (Random123, Salmon et al. 2011, kat_vectors):
//   counter 0 0 0 0, key 0 0          6627e8d5 e169c58d bc57ac4c 9b00dbd8
//   all ones                          408f276d 41c83b0e a20bc7c6 6d5451fd
//   counter 243f6a88 85a308d3 13198a2e 03707344
//   key     a4093822 299f31d0         d16cfe09 94fdcceb 5001e420 24126ea1
//
// Limits: |z| <= 6.66 (32 bits of radius), row < 2^64, stream < 2^8, step < 2^24, dim < 2^34.
// Accuracy: about 2 units in the last place of the exact Box-Muller value of the rounded
// uniform (tests/test_sampler_noise.py).
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LDMLR_HOST_DEVICE __host__ __device__ __forceinline__
#define LDMLR_FMA fmaf
#define LDMLR_SQRT sqrtf
#define LDMLR_COPY memcpy
#else
// Internal linkage: each file keeps the copy that its own instruction set was compiled for.
#define LDMLR_HOST_DEVICE static inline
#define LDMLR_FMA __builtin_fmaf
#define LDMLR_SQRT __builtin_sqrtf
#define LDMLR_COPY __builtin_memcpy
#endif

namespace ldmlr {

// What normals are for, so that no two uses share them (Stream in ldmlr/sampler/noise.py).
constexpr uint32_t start_stream = 0;        // the state the solver starts from, K dims
constexpr uint32_t solver_stream = 1;       // noise of the solver's steps, K dims, by step
constexpr uint32_t calibration_stream = 2;  // of the draw that finds the ranges of int8, in Python alone
constexpr uint32_t remainder_stream = 3;    // what the latent axes do not hold, D dims, step 0
constexpr uint32_t train_noise_stream = 4;  // noise of a training step's rows, K dims, by step
constexpr uint32_t train_row_stream = 5;    // words: class, row of it, and whether its label is dropped
constexpr uint32_t train_time_stream = 6;   // words: times of a training step

constexpr uint32_t philox_m0 = 0xD2511F53u, philox_m1 = 0xCD9E8D57u;
constexpr uint32_t philox_w0 = 0x9E3779B9u, philox_w1 = 0xBB67AE85u;

// -2 ln(1 + f) = f (c[0] + f (c[1] + ...)) for 1 + f in [sqrt(1/2), sqrt(2)), error 7e-9.
LDMLR_HOST_DEVICE float log_c(int i) {
    constexpr float c[10] = {-0x1.000000p+1f, 0x1.000000p+0f, -0x1.555564p-1f, 0x1.00023cp-1f,
                             -0x1.999860p-2f, 0x1.546790p-2f, -0x1.236438p-2f, 0x1.0e6826p-2f,
                             -0x1.025beap-2f, 0x1.2d3636p-3f};
    return c[i];
}
constexpr float minus_two_ln2 = -0x1.62e430p+0f;
// sin(pi/2 t) = t (c[0] + t^2 (...)), |t| <= 1/2, error 3e-8.
LDMLR_HOST_DEVICE float sin_c(int i) {
    constexpr float c[4] = {0x1.921fb6p+0f, -0x1.4abbecp-1f, 0x1.466b22p-4f, -0x1.2f5a1ep-8f};
    return c[i];
}
// cos(pi/2 t) = c[0] + t^2 (c[1] + ...), |t| <= 1/2, error 6e-10.
LDMLR_HOST_DEVICE float cos_c(int i) {
    constexpr float c[5] = {0x1.000000p+0f, -0x1.3bd3ccp+0f, 0x1.03c1b8p-2f, -0x1.55b7cep-6f,
                            0x1.d684a8p-11f};
    return c[i];
}
constexpr uint32_t sqrt_half_bits = 0x3f3504f3u;  // bits of sqrt(1/2) in float32

struct Words {
    uint32_t w[4];
};

// The Philox4x32-10 block function.
LDMLR_HOST_DEVICE Words philox4x32(Words counter, uint32_t key0, uint32_t key1) {
    uint32_t a = counter.w[0], b = counter.w[1], c = counter.w[2], d = counter.w[3];
    for (int round = 0; round < 10; ++round) {
        const uint64_t p = static_cast<uint64_t>(philox_m0) * a;
        const uint64_t q = static_cast<uint64_t>(philox_m1) * c;
        a = static_cast<uint32_t>(q >> 32) ^ b ^ key0;
        b = static_cast<uint32_t>(q);
        c = static_cast<uint32_t>(p >> 32) ^ d ^ key1;
        d = static_cast<uint32_t>(p);
        key0 += philox_w0;
        key1 += philox_w1;
    }
    return {{a, b, c, d}};
}

// The block of words for dims 4 * block .. 4 * block + 3 of a row.
LDMLR_HOST_DEVICE Words row_words(uint64_t seed, uint64_t row, uint32_t block, uint32_t stream,
                                  uint32_t step) {
    const Words counter = {
        {block, static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32), (stream << 24) | step}};
    return philox4x32(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// Two independent standard normals from two words.
LDMLR_HOST_DEVICE void box_muller(uint32_t radius_word, uint32_t angle_word, float &n0, float &n1) {
    // Uniform in (0, 1]: never 0, so the logarithm is finite.
    const float u = LDMLR_FMA(static_cast<float>(radius_word), 0x1p-32f, 0x1p-32f);
    uint32_t bits;
    LDMLR_COPY(&bits, &u, 4);
    const int32_t e = static_cast<int32_t>(bits - sqrt_half_bits) >> 23;
    bits -= static_cast<uint32_t>(e) << 23;
    float mantissa;
    LDMLR_COPY(&mantissa, &bits, 4);
    const float f = mantissa - 1.0f;
    float t = log_c(9);
    for (int i = 8; i >= 0; --i) t = LDMLR_FMA(t, f, log_c(i));
    const float radius = LDMLR_SQRT(LDMLR_FMA(static_cast<float>(e), minus_two_ln2, f * t));

    // The word is the angle in turns times 2^32. Its quadrant and the distance to the middle of
    // the quadrant are exact integers; only the conversion of the distance rounds.
    const uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
    const float x = static_cast<float>(static_cast<int32_t>(angle_word - (quadrant << 30))) * 0x1p-30f;
    const float x2 = x * x;
    float s = sin_c(3), c = cos_c(4);
    for (int i = 2; i >= 0; --i) s = LDMLR_FMA(s, x2, sin_c(i));
    for (int i = 3; i >= 0; --i) c = LDMLR_FMA(c, x2, cos_c(i));
    s = x * s;
    const bool odd = quadrant & 1u;
    const float cosine = odd ? s : c, sine = odd ? c : s;
    n0 = radius * (((quadrant + 1u) & 2u) ? -cosine : cosine);
    n1 = radius * ((quadrant & 2u) ? -sine : sine);
}

}  // namespace ldmlr
