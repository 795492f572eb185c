// A whole sampling call: rows cut into tiles, tiles given to threads.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels.h"

namespace ldmlr {

// Bytes of scratch that `sample` needs, for any number of rows.
int64_t sample_scratch(const Kernels &kernels, const Denoiser &net, Dtype weights, int threads);

// Draws all rows. poll(finished rows) is called about every 50 ms on the calling thread; when it
// returns true the call ends early and returns false, with the output in an unknown state.
bool sample(const Kernels &kernels, const SampleParams &params, Dtype weights, int threads, void *scratch,
            const std::function<bool(int64_t)> &poll);

// One solver step of all rows (params.h).
void denoise_step(const Kernels &kernels, const StepParams &params, int threads);

}  // namespace ldmlr
