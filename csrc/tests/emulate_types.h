// What both ways to run the kernels of ../cuda on the host have in common: words of the language, vectors,
// and instructions of one thread alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define LDMLR_KERNEL
#define LDMLR_BOUNDS(threads, blocks)
#define LDMLR_DEVICE inline
#define LDMLR_DEVICE_CALL inline
#define LDMLR_BOTH
#define LDMLR_UNROLL
#define LDMLR_LOOP

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};

namespace ldmlr::cuda::emulate {

inline float from_bfloat(uint32_t bits) {
    bits <<= 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline uint32_t to_bfloat(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline uint32_t to_half(float value) {
    const _Float16 half = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}

}  // namespace ldmlr::cuda::emulate

namespace ldmlr::cuda {

// To 11 bits, as bad as the instruction may be.
inline float tanh_fast(float x) {
    const double exact = std::tanh(static_cast<double>(x));
    if (exact == 0.0 || exact != exact) return static_cast<float>(exact);
    const double step = std::ldexp(1.0, std::ilogb(exact) - 10);
    return static_cast<float>(std::nearbyint(exact / step) * step);
}
inline void wait_for_previous() {}
inline uint32_t pack_bfloat(float low, float high) {
    return emulate::to_bfloat(low) | emulate::to_bfloat(high) << 16;
}
inline uint32_t pack_half(float low, float high) {
    return emulate::to_half(low) | emulate::to_half(high) << 16;
}
inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
template <class T>
inline T load_constant(const T *p) {
    return *p;
}
inline int count_bits(uint32_t bits) {
    return __builtin_popcount(bits);
}

}  // namespace ldmlr::cuda
