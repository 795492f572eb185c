// Tables without functions for the instruction sets that a test leaves out: under the sanitizers of clang
// their kernels compile for half an hour, the portable ones for a minute.
#include "../cpu/dispatch.h"
#include "../cpu/softmax_call.h"
#include "../cpu/training.h"

namespace ldmlr {

extern const Kernels avx2{}, avx512{}, avx512vnni{}, avx512bf16{}, amx{};
extern const TrainSet train_avx2{}, train_avx512{}, train_avx512bf16{};
extern const SoftmaxSet softmax_avx2{}, softmax_avx512{}, softmax_avx512bf16{};

}  // namespace ldmlr
