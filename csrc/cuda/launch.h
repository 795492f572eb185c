// What the rest of the extension knows of CUDA. In a build without it, stub.cpp takes the place of launch.cu.
#pragma once

#include <cstdint>
#include <functional>

#include "params.h"

namespace ldmlr::cuda {

// The targets this was compiled for, such as "80 90a"; empty without CUDA.
const char *architectures();

// All rows of a call, on its device and stream; returns as soon as the work is queued.
void sample(const Call &call);
// Bytes of Call::scratch for the tiers in layers.
int64_t scratch_bytes(const Model &model, int64_t slab);
// Frees the graph of a key, if there is one.
void forget(uint64_t graph_key);

// As on the CPU, on arrays of the device.
void denoise_step(const StepParams &params, int device, void *stream);
void normals(const NoiseParams &params, float *out, int device, void *stream);

// Trains `params.state` in place, as ldmlr::train does on the CPU (../cpu/training.h); report(done,
// answering) is called with the losses of the call so far on the host. False where it returned true, which
// ends the call.
bool train(const TrainCall &call, uint32_t first, uint32_t count, uint32_t every,
           const std::function<bool(uint32_t, double)> &report);

}  // namespace ldmlr::cuda
