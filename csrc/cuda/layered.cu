// Graphs of the layered tier: a slab takes some dozens of launches, which a graph makes one.
//
// A graph holds the addresses of one scratch and the launches of one size of slab; the numbers of a call
// (Rows) lie in the scratch, written there by a kernel of their own before each run, so one graph serves all
// calls with the same key. While the caller captures the stream itself, the kernels are launched one by one
// and become part of the caller's graph.
#include <mutex>
#include <unordered_map>

#include "layered.cuh"
#include "tiers.cuh"

namespace ldmlr::cuda {

namespace {

std::mutex graphs_lock;
std::unordered_map<uint64_t, cudaGraphExec_t> graphs;

cudaGraphExec_t capture(const Model &m, const Slab &s, int64_t slab_rows) {
    // A stream of its own, and a mode that leaves other threads alone.
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    try {
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin of the capture");
        try {
            run_slab(m, s, slab_rows, stream);
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

}  // namespace

int64_t scratch_bytes(const Model &model, int64_t slab) {
    return layered_scratch(model, slab);
}

void forget(uint64_t graph_key) {
    const std::lock_guard<std::mutex> lock(graphs_lock);
    const auto found = graphs.find(graph_key);
    if (found == graphs.end()) return;
    cudaGraphExecDestroy(found->second);
    graphs.erase(found);
}

void run_layered(const Call &call, Stream stream) {
    const Model &m = call.model;
    Slab s;
    place_slab(m, call.slab, static_cast<char *>(call.scratch), s);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "state of the stream");
    cudaGraphExec_t graph = nullptr;
    // Held until all is queued: the rows of a slab and its graph belong together on the stream.
    const std::lock_guard<std::mutex> lock(graphs_lock);
    if (status == cudaStreamCaptureStatusNone) {
        cudaGraphExec_t &kept = graphs[call.graph_key];
        if (!kept) kept = capture(m, s, call.slab);
        graph = kept;
    }
    for (int64_t from = 0; from < call.rows.count; from += call.slab) {
        const int64_t count = std::min<int64_t>(call.slab, call.rows.count - from);
        launch(rows_kernel, {1, 1}, 32, 0, stream, part_of(call.rows, m, from, count), s.rows);
        if (graph)
            check(cudaGraphLaunch(graph, stream), "graph launch");
        else
            run_slab(m, s, call.slab, stream);
    }
}

}  // namespace ldmlr::cuda
