// One instruction, one function: all that the kernels use beyond C++.
//
// On the host these are ordinary functions over emulated threads (../tests/emulate.h), so that the
// kernels themselves can be run and compared with the reference on a machine without a GPU.
#pragma once

#include <cstdint>

#ifdef LDMLR_EMULATE
#include "../tests/emulate.h"
#else

#include <cuda_runtime.h>

#define LDMLR_KERNEL __global__
#define LDMLR_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define LDMLR_DEVICE __device__ __forceinline__
#define LDMLR_BOTH __host__ __device__
#define LDMLR_UNROLL _Pragma("unroll")
#define LDMLR_LOOP _Pragma("unroll 1")

namespace ldmlr::cuda {

// The dynamic shared memory of the block.
LDMLR_DEVICE char *shared_memory() {
    extern __shared__ __align__(128) char memory[];
    return memory;
}
LDMLR_DEVICE uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 2^x and 1 / x to about 2 units in the last place; 2^128 is infinity, 1 / infinity is 0.
LDMLR_DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
LDMLR_DEVICE float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two values as bfloat16, rounded to nearest even: `low` in the low half.
LDMLR_DEVICE uint32_t pack_bfloat(float low, float high) {
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
LDMLR_DEVICE uint32_t pack_half(float low, float high) {
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
LDMLR_DEVICE float bits_to_float(uint32_t bits) {
    return __uint_as_float(bits);
}

// c += a b for a [16, 16] and b [16, 8]: see fragment.cuh for who holds what.
LDMLR_DEVICE void mma(float &c0, float &c1, float &c2, float &c3, const uint32_t (&a)[4], uint32_t b0,
                      uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit values; lane i gives the address of row i % 8 of matrix i / 8.
LDMLR_DEVICE void load_matrices(uint32_t (&a)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// 16 bytes from global to shared memory, past the first-level cache; groups complete in order.
LDMLR_DEVICE void copy_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
                 : "memory");
}
LDMLR_DEVICE void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` groups of this thread are under way.
template <int pending>
LDMLR_DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}
LDMLR_DEVICE void sync_block() {
    __syncthreads();
}

// Global memory that no kernel of the launch writes.
template <class T>
LDMLR_DEVICE T load_constant(const T *p) {
    return __ldg(p);
}

LDMLR_DEVICE int thread_index() {
    return static_cast<int>(threadIdx.x);
}
LDMLR_DEVICE int block_x() {
    return static_cast<int>(blockIdx.x);
}
LDMLR_DEVICE int block_y() {
    return static_cast<int>(blockIdx.y);
}
LDMLR_DEVICE int blocks_x() {
    return static_cast<int>(gridDim.x);
}

}  // namespace ldmlr::cuda

#endif
