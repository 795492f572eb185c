// Graphs of the layered tiers: a slab takes some dozens of launches, which a graph makes one.
//
// A graph holds the addresses of one scratch and the launches of one size of slab; the numbers of a call
// (Rows) lie in the scratch, written there by a kernel of their own before each run, so one graph serves all
// calls with the same key. While the caller captures the stream itself, the kernels are launched one by one
// and become part of the caller's graph.
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "graph.cuh"
#include "layered.cuh"
#include "tiers.cuh"

namespace ldmlr::cuda {

namespace {

std::mutex graphs_lock;
std::unordered_map<uint64_t, cudaGraphExec_t> graphs;

// The kernels by wgmma are empty for targets without it.
void check_wgmma(int device) {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
    if (major != 9 || !std::strstr(architectures(), "90a"))
        throw std::invalid_argument("the kernels by wgmma need a device and a build of sm_90a");
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
    if (by_wgmma(call.tier)) check_wgmma(call.device);
    place_slab(m, call.slab, static_cast<char *>(call.scratch), s);
    cudaGraphExec_t graph = nullptr;
    // Held until all is queued: the rows of a slab and its graph belong together on the stream.
    const std::lock_guard<std::mutex> lock(graphs_lock);
    if (!is_captured(stream)) {
        cudaGraphExec_t &kept = graphs[call.graph_key];
        if (!kept) {
            load_kernels([&] { run_slab(call, s, stream); });
            kept = capture([&](Stream own) { run_slab(call, s, own); });
        }
        graph = kept;
    }
    for (int64_t from = 0; from < call.rows.count; from += call.slab) {
        const int64_t count = std::min<int64_t>(call.slab, call.rows.count - from);
        launch(rows_kernel, {1, 1}, 32, 0, stream, part_of(call.rows, m, from, count), s.rows);
        if (graph)
            check(cudaGraphLaunch(graph, stream), "graph launch");
        else
            run_slab(call, s, stream);
    }
}

}  // namespace ldmlr::cuda
