// Products by AMX tiles: which block of tiles, and what runs beside them. Prints GFLOP/s, then cycles.
//
//   g++ -std=c++17 -O3 -mavx512f -mamx-tile -mamx-bf16 benchmarks/lab/amx_tiles.cpp -o amx_tiles &&
//   ./amx_tiles
//
// Blocks, of 96 rows times [k, max(k, 128)] in bfloat16, weights as the sampler packs them (panels of 64
// columns), sums stored: 1 x 4 tiles (kept), 2 x 2, 3 x 2, and 1 x 4 over pieces of 256 values of k, whose
// weights stay in the first-level cache while sums go to memory and back.
//
// Beside them: four products of tiles take 64 cycles; how many multiply-adds or divisions of 512 bits are
// free?
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace {

struct alignas(64) Config {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class Work>
double shortest(int repeats, Work work) {
    double best = 1e9;
    for (int trial = 0; trial < 5; ++trial) {
        const double start = seconds();
        for (int i = 0; i < repeats; ++i) work();
        best = std::min(best, (seconds() - start) / repeats);
    }
    return best;
}

struct Operands {
    const char *a;  // rows of bfloat16
    int64_t stride;
    const char *w;  // one panel: 256 bytes for each pair of k
    int k;
    float *sums;  // [rows, 64]
};

void zero_four() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

void run_1x4(const char *a, int64_t stride, const char *w, int k) {
    for (int i = 0; i < k / 32; ++i, a += 64, w += 4096) {
        _tile_loadd(4, a, stride);
        _tile_loadd(5, w, 256);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, w + 64, 256);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, w + 128, 256);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, w + 192, 256);
        _tile_dpbf16ps(3, 4, 5);
    }
}

void store_1x4(float *sums) {
    _tile_stored(0, sums, 256);
    _tile_stored(1, sums + 16, 256);
    _tile_stored(2, sums + 32, 256);
    _tile_stored(3, sums + 48, 256);
}

void blocks_1x4(const Operands &o, int rows) {
    for (int row = 0; row < rows; row += 16) {
        zero_four();
        run_1x4(o.a + row * o.stride, o.stride, o.w, o.k);
        store_1x4(o.sums + row * 64);
    }
}

void blocks_2x2(const Operands &o, int rows) {
    for (int row = 0; row < rows; row += 32)
        for (int half = 0; half < 2; ++half) {
            const char *a = o.a + row * o.stride, *w = o.w + half * 128;
            zero_four();
            for (int i = 0; i < o.k / 32; ++i, a += 64, w += 4096) {
                _tile_loadd(4, a, o.stride);
                _tile_loadd(6, w, 256);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, w + 64, 256);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, a + 16 * o.stride, o.stride);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            float *sums = o.sums + row * 64 + half * 32;
            _tile_stored(0, sums, 256);
            _tile_stored(1, sums + 16, 256);
            _tile_stored(2, sums + 1024, 256);
            _tile_stored(3, sums + 1040, 256);
        }
}

void blocks_3x2(const Operands &o, int rows) {
    for (int row = 0; row < rows; row += 48)
        for (int half = 0; half < 2; ++half) {
            const char *a = o.a + row * o.stride, *w = o.w + half * 128;
            zero_four();
            _tile_zero(4);
            _tile_zero(5);
            for (int i = 0; i < o.k / 32; ++i, a += 64, w += 4096) {
                _tile_loadd(7, w, 256);
                _tile_loadd(6, a, o.stride);
                _tile_dpbf16ps(0, 6, 7);
                _tile_loadd(6, a + 16 * o.stride, o.stride);
                _tile_dpbf16ps(1, 6, 7);
                _tile_loadd(6, a + 32 * o.stride, o.stride);
                _tile_dpbf16ps(2, 6, 7);
                _tile_loadd(7, w + 64, 256);
                _tile_dpbf16ps(5, 6, 7);
                _tile_loadd(6, a + 16 * o.stride, o.stride);
                _tile_dpbf16ps(4, 6, 7);
                _tile_loadd(6, a, o.stride);
                _tile_dpbf16ps(3, 6, 7);
            }
            float *sums = o.sums + row * 64 + half * 32;
            _tile_stored(0, sums, 256);
            _tile_stored(3, sums + 16, 256);
            _tile_stored(1, sums + 1024, 256);
            _tile_stored(4, sums + 1040, 256);
            _tile_stored(2, sums + 2048, 256);
            _tile_stored(5, sums + 2064, 256);
        }
}

void blocks_in_pieces(const Operands &o, int rows) {
    for (int first = 0; first < o.k; first += 256)
        for (int row = 0; row < rows; row += 16) {
            float *sums = o.sums + row * 64;
            if (first) {
                _tile_loadd(0, sums, 256);
                _tile_loadd(1, sums + 16, 256);
                _tile_loadd(2, sums + 32, 256);
                _tile_loadd(3, sums + 48, 256);
            } else {
                zero_four();
            }
            run_1x4(o.a + row * o.stride + first * 2, o.stride, o.w + first * 128,
                    std::min(256, o.k - first));
            store_1x4(sums);
        }
}

void products(int k) {
    constexpr int rows = 96;
    const int columns = std::max(k, 128);
    const int64_t stride = 2 * k + 64, panel = 128 * static_cast<int64_t>(k);
    std::vector<char> a(static_cast<size_t>(rows * stride + 64)),
        w(static_cast<size_t>(columns / 64 * panel + 64));
    std::vector<float> sums(rows * 64 + 16);
    auto aligned = [](auto *p) {
        return reinterpret_cast<decltype(p)>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
    };
    const double operations = 2.0 * rows * columns * k;
    auto rate = [&](auto blocks) {
        return operations * 1e-9 / shortest(static_cast<int>(4e9 / operations) + 1, [&] {
                   for (int column = 0; column < columns; column += 64)
                       blocks({aligned(a.data()), stride, aligned(w.data()) + column / 64 * panel, k,
                               aligned(sums.data())},
                              rows);
               });
    };
    std::printf("k %4d: 1 x 4 %.0f, 2 x 2 %.0f, 3 x 2 %.0f, in pieces %.0f\n", k, rate(blocks_1x4),
                rate(blocks_2x2), rate(blocks_3x2), rate(blocks_in_pieces));
}

// Cycles, in units of a quarter of four products of tiles (16), of `Products` of them beside vector
// instructions.
template <int Products, int MultiplyAdds, int Divisions>
double beside() {
    __m512 x[8];
    for (auto &value : x) value = _mm512_set1_ps(1.0f);
    const __m512 half = _mm512_set1_ps(0.5f);
    return shortest(300000, [&] {
        for (int part = 0; part < 4; ++part) {
            if (Products) _tile_dpbf16ps(0, 4, 5);
#pragma GCC unroll 32
            for (int i = 0; i < MultiplyAdds / 4; ++i)
                asm volatile("vfmadd213ps %1, %1, %0" : "+v"(x[i % 8]) : "v"(half));
#pragma GCC unroll 32
            for (int i = 0; i < Divisions / 4; ++i)
                asm volatile("vdivps %1, %1, %0" : "=v"(x[i % 8]) : "v"(half));
        }
    });
}

}  // namespace

int main() {
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) {
        std::puts("no AMX here");
        return 1;
    }
    static const Config config;
    asm volatile("" ::: "memory");
    _tile_loadconfig(&config);
    _tile_zero(4);
    _tile_zero(5);
    for (int k : {64, 128, 256, 512, 1024}) products(k);
    // Two independent multiply-adds of 512 bits issue in a cycle.
    const double cycle = beside<0, 128, 0>() / 64;
    std::printf(
        "cycles: 128 multiply-adds 64, 8 divisions %.0f; four products beside nothing %.0f, 64 "
        "multiply-adds %.0f, 128 multiply-adds %.0f, 8 divisions %.0f\n",
        beside<0, 0, 8>() / cycle, beside<4, 0, 0>() / cycle, beside<4, 64, 0>() / cycle,
        beside<4, 128, 0>() / cycle, beside<4, 0, 8>() / cycle);
}
