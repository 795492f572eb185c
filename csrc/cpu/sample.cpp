#include "sample.h"

#include <algorithm>

#include "parallel.h"

namespace ldmlr {

namespace {

constexpr int64_t line = 64;  // bytes of a cache line: tiles of two threads must not share one

int64_t tile_bytes(const Kernels &kernels, const Denoiser &net, Dtype weights) {
    return (kernels.of(weights).tile_scratch(net) + 2 * line - 1) / line * line;
}

}  // namespace

int64_t sample_scratch(const Kernels &kernels, const Denoiser &net, Dtype weights, int threads) {
    return tile_bytes(kernels, net, weights) * threads + line;
}

bool sample(const Kernels &kernels, const SampleParams &params, Dtype weights, int threads, void *scratch,
            const std::function<bool(int64_t)> &poll) {
    if (params.rows == 0) return true;
    const auto sample_tile = kernels.of(weights).sample_tile;
    const int64_t bytes = tile_bytes(kernels, params.net, weights);
    const uintptr_t base = (reinterpret_cast<uintptr_t>(scratch) + line - 1) / line * line;
    // A short call gives every thread a tile; rows do not depend on the size of their tile.
    const int64_t share = (params.rows + threads - 1) / threads;
    const int64_t rows = std::min<int64_t>(kernels.tile_rows, (share + 11) / 12 * 12);
    const int64_t tiles = (params.rows + rows - 1) / rows;
    auto task = [&](int64_t tile, int worker, const Stop &stop) {
        const int64_t first = tile * rows;
        const int count = static_cast<int>(std::min(rows, params.rows - first));
        sample_tile(params, first, count,
                    reinterpret_cast<void *>(base + static_cast<uintptr_t>(worker * bytes)), stop);
    };
    auto poll_rows = [&](int64_t finished) { return poll(std::min(finished * rows, params.rows)); };
    return run_parallel(tiles, threads, task, poll_rows);
}

void denoise_step(const Kernels &kernels, const StepParams &params, int threads) {
    if (params.rows == 0) return;
    const int64_t rows = (params.rows + threads - 1) / threads;
    auto task = [&](int64_t part, int, const Stop &) {
        const int64_t first = part * rows;
        kernels.denoise_step(params, first, std::min(rows, params.rows - first));
    };
    run_parallel((params.rows + rows - 1) / rows, threads, task, [](int64_t) { return false; });
}

}  // namespace ldmlr
