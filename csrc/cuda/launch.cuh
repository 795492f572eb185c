// Launching a kernel, and errors of the CUDA runtime as exceptions.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "ptx.cuh"

namespace ldmlr::cuda {

struct Grid {
    int x, y;
};

// The arguments of a kernel are of exactly its parameters' types.
template <class T>
struct Same {
    using type = T;
};

#ifdef LDMLR_EMULATE

using Stream = void *;

template <class... P>
void launch(void (*kernel)(P...), Grid grid, int threads, size_t shared, Stream,
            const typename Same<P>::type &...arguments) {
    emulate::run(grid.x, grid.y, threads, shared, [&] { kernel(arguments...); });
}

#else

using Stream = cudaStream_t;

inline void check(cudaError_t status, const char *what) {
    if (status == cudaSuccess) return;
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

// While true, launches only load their kernels: a kernel is loaded when it is first used, which is no thing
// to do while a stream is captured.
inline thread_local bool loading = false;

// More than 48 KB of shared memory must be asked for, once per kernel and device; asking again is cheap.
template <class... P>
void launch(void (*kernel)(P...), Grid grid, int threads, size_t shared, Stream stream,
            const typename Same<P>::type &...arguments) {
    const void *function = reinterpret_cast<const void *>(kernel);
    if (loading) {
        cudaFuncAttributes attributes;
        check(cudaFuncGetAttributes(&attributes, function), "kernel");
        return;
    }
    if (shared > 48 * 1024)
        check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "shared memory");
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
    void *addresses[] = {const_cast<void *>(static_cast<const void *>(&arguments))...};
    check(cudaLaunchKernel(function, blocks, dim3(static_cast<unsigned>(threads)), addresses, shared, stream),
          "kernel launch");
}

#endif

}  // namespace ldmlr::cuda
