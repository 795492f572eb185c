// Kernels of training for AVX-512 F, BW, DQ and VL.
#include "isa.h"
#include "train.h"
namespace ldmlr {
constexpr int tile_rows = most_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "product.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "outer.inc"
#include "train_weights.inc"
#include "train_epilogues.inc"
#include "train_tile.inc"
extern const TrainSet train_avx512;
const TrainSet train_avx512 = {
    "avx512",
    panel,
    {train_scratch<float>, train_tile<float>, train_task<float>, pack_matrix<float>, answering<float>},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
