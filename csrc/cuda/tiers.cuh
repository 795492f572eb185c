// Each tier is compiled in a file of its own; launch.cu calls them through these.
#pragma once

#include "launch.cuh"
#include "launch.h"

namespace ldmlr::cuda {

void run_fused(const Call &call, Stream stream);    // fused.cu
void run_layered(const Call &call, Stream stream);  // layered.cu

}  // namespace ldmlr::cuda
