// Kernels for any processor.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "simd_baseline.inc"
#include "noise_scalar.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels baseline;
const Kernels baseline = {
    "baseline",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
