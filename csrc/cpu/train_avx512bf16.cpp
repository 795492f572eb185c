// Kernels of training for AVX-512 with BF16: those of AVX-512, and products of bfloat16.
#include "isa.h"
#include "train.h"
namespace ldmlr {
constexpr int tile_rows = most_rows;
#include "simd_avx512.inc"
#include "noise_vector.inc"
#include "product.inc"
#include "silu_short.inc"
#include "simd_bfloat16.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "train_bfloat16.inc"
#include "outer.inc"
#include "train_weights.inc"
#include "train_epilogues.inc"
#include "train_tile.inc"
extern const TrainSet train_avx512bf16;
const TrainSet train_avx512bf16 = {
    "avx512bf16",
    panel,
    {train_scratch<float>, train_tile<float>, train_task<float>, pack_matrix<float>, answering<float>},
    {train_scratch<bfloat16>, train_tile<bfloat16>, train_task<bfloat16>, pack_matrix<bfloat16>,
     answering<bfloat16>},
};
}  // namespace ldmlr
