// Kernels of softmax regression for AVX2, FMA and F16C.
#include "isa.h"
#include "softmax.h"
namespace ldmlr {
constexpr int tile_rows = softmax_rows;
#include "simd_avx2.inc"
#include "product.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "outer.inc"
#include "softmax_kernels.inc"
extern const SoftmaxSet softmax_avx2;
const SoftmaxSet softmax_avx2 = {panel, softmax_kernels<float>(), {}};
}  // namespace ldmlr
