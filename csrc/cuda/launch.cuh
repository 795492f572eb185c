// Launching a kernel, and errors of the CUDA runtime as exceptions.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "ptx.cuh"

namespace ldmlr::cuda {

struct Grid {
    int x, y;
    int cluster = 1;  // adjacent blocks along x that share their memory
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
    emulate::run(grid.x, grid.y, grid.cluster, threads, shared, [&] { kernel(arguments...); });
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

// What this thread does meanwhile is not for a capture, whatever the mode of that: such as loading a kernel.
class Uncaptured {
  public:
    Uncaptured() { check(cudaThreadExchangeStreamCaptureMode(&mode_), "mode of the capture"); }
    ~Uncaptured() { cudaThreadExchangeStreamCaptureMode(&mode_); }
    Uncaptured(const Uncaptured &) = delete;
    Uncaptured &operator=(const Uncaptured &) = delete;

  private:
    cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

inline bool is_captured(Stream stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "state of the stream");
    return status != cudaStreamCaptureStatusNone;
}

// More than 48 KB of shared memory must be asked for, once per kernel and device; asking again is cheap.
template <class... P>
void launch(void (*kernel)(P...), Grid grid, int threads, size_t shared, Stream stream,
            const typename Same<P>::type &...arguments) {
    const void *function = reinterpret_cast<const void *>(kernel);
    if (loading || is_captured(stream)) {
        const Uncaptured uncaptured;
        cudaFuncAttributes attributes;
        check(cudaFuncGetAttributes(&attributes, function), "kernel");
        if (loading) return;
    }
    if (shared > 48 * 1024) {
        const Uncaptured uncaptured;
        check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "shared memory");
    }
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = grid.cluster > 1 ? 1 : 0;  // devices before sm_90 know no clusters
    void *addresses[] = {const_cast<void *>(static_cast<const void *>(&arguments))...};
    check(cudaLaunchKernelExC(&config, function, addresses), "kernel launch");
}

#endif

}  // namespace ldmlr::cuda
