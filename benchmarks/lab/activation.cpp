// Variants of silu in the bfloat16 kernel: speed of the whole sampler beside the error of silu.
// The winner is in csrc/cpu/simd_bfloat16.inc; what came out is in results/cpu/trials-silu.json.
//
//   c++ -std=c++17 -O3 -ffp-contract=off -fno-math-errno -mavx2 -mfma -mf16c -mavx512f -mavx512bw \
//       -mavx512dq -mavx512vl -mavx512bf16 -Wno-maybe-uninitialized benchmarks/lab/activation.cpp \
//       -o activation && ./activation
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include "../../csrc/cpu/isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "../../csrc/cpu/simd_avx512.inc"
#include "../../csrc/cpu/noise_vector.inc"
#include "../../csrc/cpu/noise.inc"
#include "../../csrc/cpu/step.inc"
#include "../../csrc/cpu/product.inc"
#include "../../csrc/cpu/silu_short.inc"
#include "../../csrc/cpu/simd_bfloat16.inc"
#include "../../csrc/cpu/tile.inc"
#include "../../csrc/cpu/features.inc"
#include "../../csrc/cpu/denoise.inc"

namespace {

using Base = Operand<bfloat16>;

// Every variant is an operand type of its own: bfloat16 products with another silu.
#define VARIANT(name)                                                         \
    struct name {                                                             \
        uint16_t bits;                                                        \
    };                                                                        \
    template <>                                                               \
    struct Operand<name> : Base {                                             \
        LDMLR_INLINE F silu(F t);                                             \
        template <int V>                                                      \
        LDMLR_INLINE void store_row(name *p, const F (&a)[V], float = 0.0f) { \
            Base::store_row(reinterpret_cast<bfloat16 *>(p), a);              \
        }                                                                     \
    };                                                                        \
    LDMLR_METHOD F Operand<name>::silu(F t)

F rcp14(F a) {
    return _mm512_rcp14_ps(a);
}

VARIANT(divide) {
    return Base::silu(t);
}

VARIANT(reciprocal) {
    const F power = scale_exp2(exp2_fraction(fraction(t)), t);
    return mul(t, rcp14(add(set1(1.0f), power)));
}

VARIANT(degree2) {  // 1.7e-3: nearly a bfloat16 unit
    const F r = fraction(t);
    const F p = fma(fma(set1(0x1.594830p-2f), r, set1(0x1.50b5b4p-1f)), r, set1(0x1.007108p+0f));
    return div(t, add(set1(1.0f), scale_exp2(p, t)));
}

VARIANT(degree5) {
    const F power = scale_exp2(Operand<float>::exp2_fraction(fraction(t)), t);
    return div(t, add(set1(1.0f), power));
}

// The exponent by integer addition instead of scalef, the fraction by rounding instead of reduce.
VARIANT(exponent) {
    const F held = max(set1(-126.0f), min(set1(126.0f), t));
    const F whole = _mm512_roundscale_ps(held, 0x09);
    const F p = exp2_fraction(sub(held, whole));
    const U n = _mm512_cvtps_epi32(whole);
    return div(t, add(set1(1.0f), as_float(addu(as_bits(p), shl<23>(n)))));
}

// Rounding by adding a large number, exponent by integer addition: no reduce, no scalef, which take
// slots of the multiply-add units. The fraction is in [-1/2, 1/2].
LDMLR_INLINE F power_by_magic(F t) {
    const F held = _mm512_range_ps(t, set1(126.0f), 0x02);  // the smaller magnitude, the sign of t
    const F shifted = add(held, set1(0x1.8p23f));
    const F r = sub(held, sub(shifted, set1(0x1.8p23f)));
    F p = fma(set1(0x1.c348f8p-5f), r, set1(0x1.ed93a2p-3f));
    p = fma(p, r, set1(0x1.62fb8ap-1f));
    p = fma(p, r, set1(0x1.fff632p-1f));
    return as_float(addu(as_bits(p), shl<23>(as_bits(shifted))));
}

VARIANT(magic) {
    return div(t, add(set1(1.0f), power_by_magic(t)));
}

VARIANT(magic_rcp) {
    return mul(t, rcp14(add(set1(1.0f), power_by_magic(t))));
}

// 2^t by one conversion: t 2^23 as an integer is the float's bits with a linear mantissa, and the
// quadratic correction of the mantissa is added before.
VARIANT(bits) {
    const F held = max(set1(-126.0f), min(set1(126.0f), t));
    const F r = fraction(held);
    const F q = fma(fma(fma(set1(0.0780f), r, set1(0.2262f)), r, set1(-0.3042f)), r, held);
    const U n = _mm512_cvtps_epi32(fma(q, set1(0x1p23f), set1(127 * 0x1p23f)));
    return div(t, add(set1(1.0f), as_float(n)));
}

// No activation at all: what the products alone reach.
VARIANT(none) {
    return t;
}

std::vector<float> floats(size_t n, float scale, uint64_t seed) {
    std::vector<float> values((n + 63) / 64 * 64);
    padded_normals({seed, 0, static_cast<int64_t>(values.size() / 64), 64, 64, 0, 0}, values.data());
    for (float &value : values) value *= scale;
    return values;
}

bool never(void *) {
    return false;
}

template <class T>
void measure(const char *name, int dim, int hidden) {
    constexpr int layers = 2, classes = 10, steps = 10;
    const float scale = 0.5f / std::sqrt(static_cast<float>(hidden));
    // Random bfloat16 weights in packed order are as good as any.
    auto weights = [&](int outputs, int inputs, int count) {
        const std::vector<float> source = floats(static_cast<size_t>(outputs * inputs * count), scale, 3);
        std::vector<T> packed(static_cast<size_t>(outputs * inputs * count));
        for (size_t i = 0; i < packed.size(); i += 64) {
            const F row[4] = {load(&source[i]), load(&source[i + 16]), load(&source[i + 32]),
                              load(&source[i + 48])};
            Operand<T>::store_row(&packed[i], row);
        }
        return packed;
    };
    const auto input = weights(hidden, dim, 1), first = weights(hidden, std::min(dim, hidden), 1);
    const auto w1 = weights(hidden, hidden, 1), w2 = weights(hidden, hidden, 2),
               output = weights(dim, hidden, 1);
    const auto bias = floats(static_cast<size_t>(steps + classes + 1) * layers * hidden, 0.3f, 4);
    const auto mean = floats(static_cast<size_t>(classes) * dim, 1.0f, 5);
    const std::vector<StepRow> rows(steps, {0.9f, -0.4f, -5.0f, 5.0f, 0.7f, 0.4f, 0.1f, 0.0f});
    const std::vector<int64_t> labels(tile_rows, 1);
    std::vector<float> out(static_cast<size_t>(tile_rows) * dim);
    SampleParams p{};
    p.net = {dim,          hidden,       layers,      classes,     dim < hidden,
             input.data(), first.data(), w1.data(),   w2.data(),   output.data(),
             bias.data(),  bias.data(),  bias.data(), bias.data(), bias.data()};
    const std::vector<float> floor(static_cast<size_t>(padded(dim)), 0.0f);
    p.transform.dim = dim;
    p.transform.mean = p.transform.diagonal = mean.data();
    p.transform.floor = floor.data();
    p.steps = rows.data();
    p.num_steps = steps;
    p.guidance = 1.5f;
    p.labels = labels.data();
    p.out = out.data();
    std::vector<char> scratch(static_cast<size_t>(tile_scratch<T>(p.net)) + 64);
    void *aligned = reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    double best = 1e9;
    for (int i = 0; i < 3000; ++i) {
        const auto start = std::chrono::steady_clock::now();
        sample_tile<T>(p, 0, tile_rows, aligned, {never, nullptr});
        best =
            std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    const double shared = double(dim) * hidden + double(std::min(dim, hidden)) * hidden;
    const double flop = 2.0 * steps * (shared + 2 * 3.0 * hidden * hidden + double(dim) * hidden);

    double error = 0;  // of silu, relative to half a bfloat16 unit of its value
    for (double x = -20; x < 20; x += 1e-3) {
        const float t = static_cast<float>(-x / std::log(2.0));
        const double exact = x / (1 + std::exp(-x));
        const double found = -std::log(2.0) * _mm512_cvtss_f32(Operand<T>::silu(set1(t)));
        if (std::fabs(exact) > 1e-6) error = std::max(error, std::fabs(found / exact - 1) * 512);
    }
    std::printf("D %d H %-4d %-10s %8.0f rows/s  %4.0f GFLOP/s  error %.4f\n", dim, hidden, name,
                tile_rows / best, flop * tile_rows / best * 1e-9, error);
}

template <class T>
void both(const char *name) {
    measure<T>(name, 64, 64);
    measure<T>(name, 64, 128);
}

}  // namespace
}  // namespace ldmlr

int main() {
    using namespace ldmlr;
    for (int i = 0; i < 2; ++i) {
        both<divide>("divide");
        both<reciprocal>("reciprocal");
        both<degree2>("degree2");
        both<degree5>("degree5");
        both<exponent>("exponent");
        both<magic>("magic");
        both<magic_rcp>("magic_rcp");
        both<bits>("bits");
        both<none>("none");
    }
}
