// Training on a device: a graph of some steps, launched again and again.
//
// A step is two kernels (train_rows.cuh, train_weights.cuh). Launched one by one each would wait for the host
// for some microseconds; in a graph the next starts one or two behind the one before.
#include "train.cuh"

#include "graph.cuh"
#include "launch.h"

namespace ldmlr::cuda {

namespace {

// Some steps as a graph, for as long as a call lasts; none where there are none.
struct Steps {
    const uint32_t count;
    cudaGraphExec_t executable = nullptr;

    Steps(const TrainParams &p, const TrainBuffers &b, uint32_t first, uint32_t count) : count(count) {
        if (count == 0) return;
        load_kernels([&] { train_step(p, b, first, nullptr); });
        executable = capture([&](Stream stream) {
            for (uint32_t i = 0; i < count; ++i) train_step(p, b, first, stream);
        });
    }
    ~Steps() {
        if (executable) cudaGraphExecDestroy(executable);
    }
    Steps(const Steps &) = delete;
    Steps &operator=(const Steps &) = delete;
};

}  // namespace

bool train(const TrainCall &call, uint32_t first, uint32_t count, uint32_t every,
           const std::function<bool(uint32_t, double)> &report) {
    const TrainParams &p = call.params;
    if (p.share != train_rows) throw std::invalid_argument("training: rows that share a time are others");
    if (count == 0) return true;
    const OnDevice on(call.device);
    const Stream stream = static_cast<Stream>(call.stream);
    TrainBuffers b;
    place_train(p, static_cast<char *>(call.scratch), b);
    start_training(p, b, first, stream);
    const uint32_t together = static_cast<uint32_t>(call.graph_steps);
    const Steps graph(p, b, first, together <= count ? together : 0);
    const auto run = [&](uint32_t steps) {
        for (; graph.count > 0 && steps >= graph.count; steps -= graph.count)
            check(cudaGraphLaunch(graph.executable, stream), "graph launch");
        for (; steps > 0; --steps) train_step(p, b, first, stream);
    };
    const auto look = [&](uint32_t done) { return look_at_training(p, b, done, call.losses, stream); };
    return train_and_report(first, count, every, run, look, report);
}

}  // namespace ldmlr::cuda
