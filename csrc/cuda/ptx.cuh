// One instruction, one function: all that the kernels use beyond C++.
//
// On the host these are ordinary functions over emulated threads (../tests/emulate.h), so that the
// kernels themselves can be run and compared with the reference on a machine without a GPU; or over real
// threads (../tests/threaded.h), for a detector of races.
#pragma once

#include <cstdint>

#if defined(LDMLR_EMULATE_BY_THREADS)
#include "../tests/threaded.h"
#elif defined(LDMLR_EMULATE)
#include "../tests/emulate.h"
#else

#include <cuda_runtime.h>

#define LDMLR_KERNEL __global__
#define LDMLR_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define LDMLR_DEVICE __device__ __forceinline__
#define LDMLR_DEVICE_CALL static __device__ __noinline__
#define LDMLR_BOTH __host__ __device__
#define LDMLR_UNROLL _Pragma("unroll")
#define LDMLR_LOOP _Pragma("unroll 1")

namespace ldmlr::cuda {

// The dynamic shared memory of the block.
LDMLR_DEVICE char *shared_memory() {
    // Swizzled tiles of wgmma start at multiples of 1,024 bytes.
    extern __shared__ __align__(1024) char memory[];
    return memory;
}
LDMLR_DEVICE uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// tanh(x) to a relative 2^-11, in one instruction.
LDMLR_DEVICE float tanh_fast(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
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

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LDMLR_WARPGROUP
#endif

#ifdef LDMLR_WARPGROUP

// Shared memory written before by this thread is seen by wgmma from now on.
LDMLR_DEVICE void fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
LDMLR_DEVICE void warpgroup_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
LDMLR_DEVICE void warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `pending` groups are under way.
template <int pending>
LDMLR_DEVICE void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Behind a wait: whatever reads these accumulators must not move before it.
template <int count>
LDMLR_DEVICE void settled(float (&d)[count]) {
    LDMLR_UNROLL
    for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Rows of 128 bytes, swizzled in atoms of 8 rows (1,024 bytes), inputs contiguous. PTX ISA, "matrix
// descriptor": address and stride of the atoms in units of 16 bytes, swizzle mode 1 (128 bytes).
LDMLR_DEVICE uint64_t matrix_descriptor(const void *p) {
    return static_cast<uint64_t>((shared_address(p) & 0x3ffff) >> 4) | uint64_t{1} << 16 |
           uint64_t{64} << 32 | uint64_t{1} << 62;
}

// c += a b for a [64, 16] and b [16, 8 N] in shared memory, by 128 threads; a warp has 16 rows.
LDMLR_DEVICE void warpgroup_mma(float (&d)[64], uint64_t a, uint64_t b) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, "
        "%41, "
        "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
        "%62, %63}, %64, %65, add, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),
          "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),
          "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),
          "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
          "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]),
          "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]),
          "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
          "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b));
}
LDMLR_DEVICE void warpgroup_mma(float (&d)[32], uint64_t a, uint64_t b) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
        "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, add, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),
          "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),
          "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),
          "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b));
}

#endif

// A kernel launched early (launch.cuh) waits here until the one before it has ended and all it wrote is
// there, then lets the next one come: its blocks start as soon as there is room, and wait here in turn.
LDMLR_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Global memory that no kernel of the launch writes.
template <class T>
LDMLR_DEVICE T load_constant(const T *p) {
    return __ldg(p);
}

LDMLR_DEVICE int thread_index() {
    return static_cast<int>(threadIdx.x);
}
// A value that is the same in all lanes of a warp, said so to the compiler.
LDMLR_DEVICE int same_in_warp(int x) {
    return __shfl_sync(0xffffffffu, x, 0);
}
// Bit i: what lane i of the warp says. For whole warps.
LDMLR_DEVICE uint32_t ballot(bool vote) {
    return __ballot_sync(0xffffffffu, vote);
}
LDMLR_DEVICE int count_bits(uint32_t bits) {
    return __popc(bits);
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
