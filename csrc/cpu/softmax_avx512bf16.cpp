// Kernels of softmax regression for AVX-512 with BF16: those of AVX-512, and products of bfloat16.
#include "isa.h"
#include "softmax.h"
namespace ldmlr {
constexpr int tile_rows = softmax_rows;
#include "simd_avx512.inc"
#include "product.inc"
#include "silu_short.inc"
#include "simd_bfloat16.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "train_bfloat16.inc"
#include "outer.inc"
#include "softmax_kernels.inc"
extern const SoftmaxSet softmax_avx512bf16;
const SoftmaxSet softmax_avx512bf16 = {panel, softmax_kernels<float>(), softmax_kernels<bfloat16>()};
}  // namespace ldmlr
