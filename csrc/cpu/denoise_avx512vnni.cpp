// Kernels for AVX-512 with VNNI: those of AVX-512, and products of int8.
#include "isa.h"
namespace ldmlr {
constexpr int tile_rows = usual_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "noise.inc"
#include "step.inc"
#include "product.inc"
#include "silu_short.inc"
#include "simd_int8.inc"
#include "product_int8.inc"
#include "tile.inc"
#include "features.inc"
#include "denoise.inc"
#include "peak.inc"
extern const Kernels avx512vnni;
const Kernels avx512vnni = {
    "avx512vnni",
    panel,
    tile_rows,
    normals,
    denoise_step,
    {sample_tile<float>, tile_scratch<float>, peak<float>},
    {nullptr, nullptr, nullptr},
    {sample_tile<int8>, tile_scratch<int8>, peak<int8>},
};
}  // namespace ldmlr
