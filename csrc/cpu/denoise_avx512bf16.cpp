// Kernels for AVX-512 with BF16 and VNNI: those of AVX-512, and products of bfloat16 and of int8.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "silu_short.inc"
#include "simd_bfloat16.inc"
#include "simd_int8.inc"
#include "product_int8.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels avx512bf16;
const Kernels avx512bf16 = {
    "avx512bf16",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {sample_tile<bfloat16>, tile_scratch<bfloat16>, peak<bfloat16>},
    {sample_tile<int8>, tile_scratch<int8>, peak<int8>},
};
}  // namespace ldmlr
