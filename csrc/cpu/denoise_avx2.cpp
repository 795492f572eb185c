// Kernels for AVX2, FMA and F16C.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "simd_avx2.inc"
#include "noise_vector.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels avx2;
const Kernels avx2 = {
    "avx2",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
