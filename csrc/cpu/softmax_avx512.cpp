// Kernels of softmax regression for AVX-512.
#include "isa.h"
#include "softmax.h"
namespace ldmlr {
constexpr int tile_rows = softmax_rows;
#include "simd_avx512.inc"
#include "product.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "outer.inc"
#include "softmax_kernels.inc"
extern const SoftmaxSet softmax_avx512;
const SoftmaxSet softmax_avx512 = {panel, softmax_kernels<float>(), {}};
}  // namespace ldmlr
