// Kernels of softmax regression for any processor.
#include "isa.h"
#include "softmax.h"
namespace ldmlr {
constexpr int tile_rows = softmax_rows;
#include "simd_baseline.inc"
#include "product.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "outer.inc"
#include "softmax_kernels.inc"
extern const SoftmaxSet softmax_baseline;
const SoftmaxSet softmax_baseline = {panel, softmax_kernels<float>(), {}};
}  // namespace ldmlr
