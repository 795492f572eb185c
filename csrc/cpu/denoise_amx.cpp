// Kernels for AMX: those of AVX-512 with BF16 and VNNI, and products of bfloat16 and of int8 by tiles.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = 2 * usual_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "silu_short.inc"
#include "simd_bfloat16.inc"
#include "simd_int8.inc"
#include "product_int8.inc"
#include "product_amx.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
#include "peak_amx.inc"
extern const Kernels amx;
const Kernels amx = {
    "amx",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {sample_tile<bfloat16>, tile_scratch<bfloat16>, tile_peak<bfloat16>},
    {sample_tile<int8>, tile_scratch<int8>, tile_peak<int8>},
};
}  // namespace ldmlr
