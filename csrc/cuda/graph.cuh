// Launches as a graph, which is one launch.
#pragma once

#include "launch.cuh"

namespace ldmlr::cuda {

// Loads the kernels that `run` launches, without launching them.
template <class Run>
void load_kernels(const Run &run) {
    loading = true;
    try {
        run();
    } catch (...) {
        loading = false;
        throw;
    }
    loading = false;
}

// A graph of what run(stream) launches; its kernels are loaded.
template <class Run>
cudaGraphExec_t capture(const Run &run) {
    // A stream of its own, and a mode that leaves other threads alone.
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    try {
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin of the capture");
        try {
            run(stream);
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "end of the capture");
        check(cudaGraphInstantiate(&executable, graph, 0), "graph");
    } catch (...) {
        if (graph) cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
        throw;
    }
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    return executable;
}

}  // namespace ldmlr::cuda
