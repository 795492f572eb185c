// Kernels for any processor.
#include "isa.h"
namespace ldmlr {
#include "simd_baseline.inc"
#include "noise_scalar.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels baseline;
const Kernels baseline = {
    "baseline",
    panel,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
