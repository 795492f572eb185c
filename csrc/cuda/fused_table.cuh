// The shapes that the fused tiers are compiled for, and their launch.
#pragma once

#include <algorithm>

#include "fused.cuh"
#include "launch.cuh"

namespace ldmlr::cuda {

// One compiled shape. Python reads the table (ldmlr/sampler/cuda/tiers.py) and rounds D and H up to an entry.
struct FusedShape {
    Tier tier;
    int dim, hidden;  // D', H'
    int64_t (*shared_bytes)(int layers, bool guided);
    void (*run)(const Model &, const Rows &, int multiprocessors, Stream);
};

template <int DT, int HT, template <int, int> class Weights>
struct Fused {
    static constexpr int tiles = HT <= 8 ? 2 : 1;
    static int64_t shared_bytes(int layers, bool guided) {
        return Weights<DT, HT>::bytes(layers) + fused_threads * 16 * state_vectors(DT, guided && tiles == 1);
    }
    static void run(const Model &m, const Rows &rows, int multiprocessors, Stream stream) {
        const bool guided = m.guidance != 1.0f;
        const int64_t units = (rows.count + 15) / 16;
        const Grid grid = {static_cast<int>(std::min<int64_t>(units, multiprocessors)), 1};
        const size_t bytes = static_cast<size_t>(shared_bytes(m.layers, guided));
        if (guided)
            launch(fused_kernel<DT, HT, tiles, true, Weights>, grid, fused_threads, bytes, stream, m, rows);
        else
            launch(fused_kernel<DT, HT, 1, false, Weights>, grid, fused_threads, bytes, stream, m, rows);
    }
    static constexpr FusedShape entry(Tier tier) { return {tier, 16 * DT, 16 * HT, shared_bytes, run}; }
};

inline constexpr FusedShape fused_shapes[] = {
    Fused<4, 4, Resident>::entry(Tier::resident), Fused<4, 8, Resident>::entry(Tier::resident),
    Fused<4, 8, Streamed>::entry(Tier::streamed), Fused<4, 16, Streamed>::entry(Tier::streamed),
    Fused<8, 8, Streamed>::entry(Tier::streamed), Fused<8, 16, Streamed>::entry(Tier::streamed),
};

inline const FusedShape &fused_shape(Tier tier, int dim, int hidden) {
    for (const FusedShape &shape : fused_shapes)
        if (shape.tier == tier && shape.dim == dim && shape.hidden == hidden) return shape;
    throw std::invalid_argument("no fused kernel of this shape");
}

}  // namespace ldmlr::cuda
