// Work on the caller's thread and on helpers that live only as long as the call.
//
// No OpenMP: a second runtime in one process slows torch's down. No pool: nothing is alive after
// the call, so the process may fork.
#pragma once

#include <cstdint>
#include <functional>

#include "../params.h"

namespace ldmlr {

// Runs task(index, worker, stop) for every index below `count`, worker below `threads`. Workers
// take indices from one counter; the caller is worker 0. About every 50 ms the caller's thread
// calls poll(finished indices); when it returns true, tasks are told to stop. Returns false then.
bool run_parallel(int64_t count, int threads, const std::function<void(int64_t, int, const Stop &)> &task,
                  const std::function<bool(int64_t)> &poll);

}  // namespace ldmlr
