// Launching a kernel, and errors of the CUDA runtime as exceptions.
#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

#include "ptx.cuh"

namespace ldmlr::cuda {

struct Grid {
    int x, y;
    int cluster = 1;     // adjacent blocks along x that share their memory
    bool early = false;  // may start before the kernel before it has ended; it calls wait_for_previous
};

// The arguments of a kernel are of exactly its parameters' types.
template <class T>
struct Same {
    using type = T;
};

#ifdef LDMLR_EMULATE

using Stream = void *;

inline void download(void *to, const void *from, size_t bytes, Stream) {
    std::memcpy(to, from, bytes);
}

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

// The device of a call, for as long as it lasts.
class OnDevice {
  public:
    explicit OnDevice(int device) {
        check(cudaGetDevice(&before_), "current device");
        if (device != before_) check(cudaSetDevice(device), "device");
    }
    ~OnDevice() { cudaSetDevice(before_); }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;

  private:
    int before_ = 0;
};

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
    bool early = false;
    if (loading || grid.early || is_captured(stream)) {
        const Uncaptured uncaptured;
        cudaFuncAttributes attributes;
        check(cudaFuncGetAttributes(&attributes, function), "kernel");
        if (loading) return;
        // Code of an earlier target, compiled anew for this device, does not wait.
        early = grid.early && attributes.ptxVersion >= 90;
    }
    if (shared > 48 * 1024) {
        const Uncaptured uncaptured;
        check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared)),
              "shared memory");
    }
    cudaLaunchAttribute attributes[2];
    unsigned count = 0;
    if (grid.cluster > 1) {  // devices before sm_90 know no clusters
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = static_cast<unsigned>(grid.cluster);
        attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
        ++count;
    }
    if (early) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count].val.programmaticStreamSerializationAllowed = 1;
        ++count;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    void *addresses[] = {const_cast<void *>(static_cast<const void *>(&arguments))...};
    check(cudaLaunchKernelExC(&config, function, addresses), "kernel launch");
}

// From the device to the host, behind all that is queued; returns when it is there.
inline void download(void *to, const void *from, size_t bytes, Stream stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "copy to the host");
    check(cudaStreamSynchronize(stream), "work of the stream");
}

#endif

}  // namespace ldmlr::cuda
