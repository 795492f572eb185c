// A call of softmax regression: loss and gradient over rows.
#pragma once

#include <cstdint>
#include <functional>

#include "softmax.h"

namespace ldmlr {

// The kernels of an instruction set, or of the best one below it that has its own; null if there are none.
const SoftmaxSet *find_softmax_set(const char *name);

// Bytes that a call needs. Where its memory is used for the first time it is all zeros: numbers of rows
// beyond the last are multiplied as well.
int64_t softmax_memory(const SoftmaxSet &set, const SoftmaxParams &params, Dtype products, int threads);

// Writes the gradients of `params` and the loss. poll() is asked about every 50 ms, on the calling thread;
// when it returns true the call ends and returns false, with nothing of worth written.
bool softmax(const SoftmaxSet &set, const SoftmaxParams &params, Dtype products, int threads, void *memory,
             double &loss, const std::function<bool()> &poll);

}  // namespace ldmlr
