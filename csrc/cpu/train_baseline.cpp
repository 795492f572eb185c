// Kernels of training for any processor.
#include "isa.h"
#include "train.h"
namespace ldmlr {
constexpr int tile_rows = most_rows;
#include "simd_baseline.inc"
#include "noise_scalar.inc"
#include "product.inc"
#include "tile.inc"
#include "train_operand.inc"
#include "outer.inc"
#include "train_weights.inc"
#include "train_epilogues.inc"
#include "train_tile.inc"
extern const TrainSet train_baseline;
const TrainSet train_baseline = {
    "baseline",
    panel,
    {train_scratch<float>, train_tile<float>, train_task<float>, pack_matrix<float>, answering<float>},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
}  // namespace ldmlr
