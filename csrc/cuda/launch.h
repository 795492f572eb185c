// What the rest of the extension knows of CUDA. In a build without it, stub.cpp takes the place of launch.cu.
#pragma once

#include <cstdint>

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

}  // namespace ldmlr::cuda
