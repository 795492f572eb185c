// The entry points: select the device, choose the tier, queue the work.
#include "launch.h"

#include "step.cuh"
#include "tiers.cuh"

#ifndef LDMLR_CUDA_TARGETS
#error "setup.py defines LDMLR_CUDA_TARGETS"
#endif

namespace ldmlr::cuda {

const char *architectures() {
    return LDMLR_CUDA_TARGETS;
}

void sample(const Call &call) {
    if (call.rows.count == 0) return;
    const OnDevice on(call.device);
    const Stream stream = static_cast<Stream>(call.stream);
    in_layers(call.tier) ? run_layered(call, stream) : run_fused(call, stream);
}

void denoise_step(const StepParams &params, int device, void *stream) {
    const OnDevice on(device);
    denoise_step(params, static_cast<Stream>(stream));
}

void normals(const NoiseParams &params, float *out, int device, void *stream) {
    const OnDevice on(device);
    normals(params, out, static_cast<Stream>(stream));
}

}  // namespace ldmlr::cuda
