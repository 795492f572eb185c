// A training call: steps first .. first + count - 1 of a state.
#pragma once

#include <cstdint>
#include <functional>

#include "train.h"

namespace ldmlr {

// The kernels of an instruction set, or of the best one below it that has its own; null if there are none.
const TrainSet *find_train_set(const char *name);

// Trains `params.state` in place. report(done, answering) is called on the calling thread behind steps whose
// number is a multiple of `every`, and behind the last, with the steps done and the share of the last
// activation's units that answer to their input; poll() about every 50 ms. When either returns true the
// call ends and returns false, with the state in between.
bool train(const TrainSet &set, const TrainParams &params, Dtype products, uint32_t first, uint32_t count,
           int threads, uint32_t every, const std::function<bool(uint32_t, double)> &report,
           const std::function<bool()> &poll);

// Numbers of the state's four arrays, P.
int64_t train_numbers(const TrainParams &params);

}  // namespace ldmlr
