// What int8 products (`vpdpbusd`) could gain over bfloat16 pairs: one hidden layer of 96 rows, product,
// silu and rounding to the next operand, in both types.
//
//   c++ -std=c++17 -O3 -ffp-contract=off -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl \
//       -mavx512bf16 -mavx512vnni -Wno-maybe-uninitialized benchmarks/lab/int8_product.cpp -o /tmp/int8
//   /tmp/int8
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "../../csrc/cpu/isa.h"
namespace ldmlr {
#include "../../csrc/cpu/simd_avx512.inc"
#include "../../csrc/cpu/product.inc"
#include "../../csrc/cpu/simd_bfloat16.inc"

namespace {

constexpr int rows = 96;

// u = silu(W a + bias) in bfloat16, as denoise.inc does it.
struct Bfloat {
    const float *bias;
    bfloat16 *u;
    int stride;
    template <int r, int v>
    LDMLR_METHOD void begin(F (&acc)[r][v], int, int column) {
#pragma GCC unroll 24
        for (int i = 0; i < r * v; ++i) acc[i / v][i % v] = load(bias + column + i % v * W);
    }
    template <int r, int v>
    LDMLR_METHOD void end(F (&acc)[r][v], int row, int column) {
#pragma GCC unroll 12
        for (int i = 0; i < r; ++i) {
            F y[v];
#pragma GCC unroll 4
            for (int j = 0; j < v; ++j) y[j] = Operand<bfloat16>::silu(acc[i][j]);
            Operand<bfloat16>::store_row(u + (row + i) * stride + column, y);
        }
    }
};

// Four unsigned activations times four signed weights; the accumulators hold integers.
struct int8 {
    uint8_t bits;
};

template <>
struct Operand<int8> {
    static constexpr int pair = 4;
    using Values = U;
    LDMLR_INLINE Values weights(const char *p) { return _mm512_loadu_si512(p); }
    LDMLR_INLINE Values broadcast(const char *p) {
        int four;
        __builtin_memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }
    LDMLR_INLINE F accumulate(Values a, Values b, F c) {
        // Not the intrinsic: gcc 12 copies the accumulators around it, a third of the rate.
        asm("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
        return c;
    }
};

// The same layer. Activations have the offset 128, whose share of the sum, 128 times the sum of a
// column's weights, is in the bias; every column has its scale.
template <bool complete>
struct Int8 {
    const float *scale, *bias;
    uint8_t *u;
    int stride;
    float step;
    template <int r, int v>
    LDMLR_METHOD void begin(F (&acc)[r][v], int, int) {
#pragma GCC unroll 24
        for (int i = 0; i < r * v; ++i) acc[i / v][i % v] = zero();
    }
    template <int r, int v>
    LDMLR_METHOD void end(F (&acc)[r][v], int row, int column) {
#pragma GCC unroll 24
        for (int i = 0; i < r * v; ++i) {
            const int at = column + i % v * W;
            U out = as_bits(acc[i / v][i % v]);
            if constexpr (complete) {
                const F t = fma(from_signed(out), load(scale + at), load(bias + at));
                out = _mm512_cvtps_epi32(fma(Operand<bfloat16>::silu(t), set1(step), set1(128.0f)));
            }
            _mm_storeu_si128(reinterpret_cast<__m128i *>(u + (row + i / v) * stride + at),
                             _mm512_cvtusepi32_epi8(out));
        }
    }
};

template <class Call>
double best(double operations, Call call) {
    double shortest = 1e9;
    const int repeats = std::max(1, static_cast<int>(2e8 / operations));
    for (int i = 0; i < 60; ++i) {
        const auto start = std::chrono::steady_clock::now();
        for (int j = 0; j < repeats; ++j) call();
        const auto time = std::chrono::steady_clock::now() - start;
        shortest = std::min(shortest, std::chrono::duration<double>(time).count() / repeats);
    }
    return operations / shortest * 1e-9;
}

void measure(int size) {
    const int stride = size + 64;
    const double operations = 2.0 * rows * size * size;
    const std::vector<float> bias(static_cast<size_t>(size), 0.1f), scale(static_cast<size_t>(size), 1e-3f);
    std::vector<bfloat16> a(static_cast<size_t>(rows) * stride), u(a.size()),
        w(static_cast<size_t>(size) * size);
    std::vector<int8> qa(a.size());
    std::vector<uint8_t> qu(a.size());
    std::vector<int8_t> qw(w.size());
    uint32_t state = 1;
    auto random = [&] { return (state = state * 1664525u + 1013904223u) >> 16; };
    for (auto &value : a) value.bits = static_cast<uint16_t>(0x3f80 + (random() & 0x807f));
    for (auto &value : w) value.bits = static_cast<uint16_t>(0x3c80 + (random() & 0x807f));
    for (auto &value : qa) value.bits = static_cast<uint8_t>(random());
    for (auto &value : qw) value = static_cast<int8_t>(random());
    Bfloat hidden{bias.data(), u.data(), stride};
    const double half =
        best(operations, [&] { product(a.data(), stride, w.data(), size, size, rows, hidden); });
    Int8<false> sums{scale.data(), bias.data(), qu.data(), stride, 9.0f};
    Int8<true> layer{scale.data(), bias.data(), qu.data(), stride, 9.0f};
    const double plain =
        best(operations, [&] { product(qa.data(), stride, qw.data(), size, size, rows, sums); });
    const double full =
        best(operations, [&] { product(qa.data(), stride, qw.data(), size, size, rows, layer); });
    std::printf("H %4d: bfloat16 layer %4.0f GFLOP/s, int8 product %4.0f, int8 layer %4.0f (%.2f x)\n", size,
                half, plain, full, full / half);
}

}  // namespace
}  // namespace ldmlr

int main() {
    for (int i = 0; i < 2; ++i)
        for (const int size : {64, 128, 256, 512, 1024}) ldmlr::measure(size);
}
