// Kernels for AVX-512 F, BW, DQ and VL.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels avx512;
const Kernels avx512 = {
    "avx512",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
