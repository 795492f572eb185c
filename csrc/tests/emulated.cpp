// The kernels of ../cuda on emulated threads, as a library for tests/test_cuda_kernels.py:
//
//   c++ -std=c++17 -O2 -ffp-contract=off -DLDMLR_EMULATE -shared -fPIC csrc/tests/emulated.cpp -o emulated.so
//
// All addresses of a call are those of host memory.
#include <cstdio>
#include <vector>

#include "../cuda/fused_table.cuh"
#include "../cuda/layered.cuh"
#include "../cuda/step.cuh"
#include "../cuda/train.cuh"
#include "emulated_faults.h"

using namespace ldmlr;
using namespace ldmlr::cuda;

namespace {

void run(const Call &call, int multiprocessors) {
    if (!in_layers(call.tier)) {
        fused_shape(call.tier, call.model.latent_padded, call.model.hidden_padded)
            .run(call.model, call.rows, multiprocessors, nullptr);
        return;
    }
    Slab s;
    place_slab(call.model, call.slab, static_cast<char *>(call.scratch), s);
    for (int64_t from = 0; from < call.rows.count; from += call.slab) {
        const int64_t count = std::min<int64_t>(call.slab, call.rows.count - from);
        launch(rows_kernel, {1, 1}, 32, 0, nullptr, part_of(call.rows, call.model, from, count), s.rows);
        run_slab(call, s, nullptr);
    }
}

bool train(const TrainCall &call, uint32_t first, uint32_t count, uint32_t every,
           const std::function<bool(uint32_t, double)> &report) {
    const TrainParams &p = call.params;
    TrainBuffers b;
    place_train(p, static_cast<char *>(call.scratch), b);
    start_training(p, b, first, nullptr);
    const auto run = [&](uint32_t steps) {
        for (; steps > 0; --steps) train_step(p, b, first, nullptr);
    };
    const auto look = [&](uint32_t done) { return look_at_training(p, b, done, call.losses, nullptr); };
    return train_and_report(first, count, every, run, look, report);
}

template <class F>
int guarded(const F &f) {
    try {
        f();
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "emulated: %s\n", error.what());
        return 1;
    }
}

}  // namespace

extern "C" {

int emulated_sample(const Call *call, int multiprocessors) {
    return guarded([&] { run(*call, multiprocessors); });
}
int64_t emulated_scratch(const Model *model, int64_t slab) {
    return layered_scratch(*model, slab);
}
int emulated_denoise_step(const StepParams *params) {
    return guarded([&] { denoise_step(*params, nullptr); });
}
int emulated_normals(const NoiseParams *params, float *out) {
    return guarded([&] { normals(*params, out, nullptr); });
}
int emulated_train(const TrainCall *call, uint32_t first, uint32_t count, uint32_t every,
                   bool (*report)(uint32_t, double)) {
    return guarded([&] { train(*call, first, count, every, report); });
}
// What the last step drew: input and target [B, K], features of the times [T, time_inputs], labels [B].
void emulated_drawn(const TrainCall *call, const void **found) {
    TrainBuffers b;
    place_train(call->params, static_cast<char *>(call->scratch), b);
    found[0] = b.x, found[1] = b.target, found[2] = b.t, found[3] = b.label;
}
void emulated_sizes(int64_t *sizes) {
    sizes[0] = sizeof(Model), sizes[1] = sizeof(Rows), sizes[2] = sizeof(Call);
    sizes[3] = sizeof(StepParams), sizes[4] = sizeof(NoiseParams);
    sizes[5] = sizeof(TrainParams), sizes[6] = sizeof(TrainCall);
}
int64_t emulated_operand_at(int row, int column, int width) {
    return operand_at(row, column, width);
}
// What the emulator says of a kernel with a fault, in `message` of 100 bytes; 0 behind the last.
int emulated_fault(int number, char *message) {
    if (number >= static_cast<int>(std::size(faults))) return 0;
    std::snprintf(message, 100, "%s", outcome_of(faults[number]).c_str());
    return 1;
}
int emulated_shape(int index, int layers, int guided, int64_t *found) {
    if (index >= static_cast<int>(std::size(fused_shapes))) return 0;
    const FusedShape &shape = fused_shapes[index];
    found[0] = static_cast<int64_t>(shape.tier), found[1] = shape.dim, found[2] = shape.hidden;
    found[3] = shape.shared_bytes(layers, guided != 0);
    return 1;
}
}
