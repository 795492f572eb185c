// The layered tiers: the kernels of one slab of rows, layer by layer.
//
// They work for every size. A slab is small enough that its activations stay in the second-level cache from
// one layer to the next; the kernels of all steps are launched in one go, captured as a graph (layered.cu).
#pragma once

#include <algorithm>

#include "bulk.cuh"
#include "epilogues.cuh"
#include "launch.cuh"
#include "warpgroup.cuh"

namespace ldmlr::cuda {

// Lays out the buffers of a slab from `base`; returns the bytes used (base may be null).
inline int64_t place_slab(const Model &m, int64_t slab_rows, char *base, Slab &s) {
    const int64_t stacked = slab_rows * (m.guidance != 1.0f ? 2 : 1);
    int64_t used = 0;
    auto take = [&](auto *&pointer, int64_t count) {
        using T = std::remove_reference_t<decltype(*pointer)>;
        pointer = reinterpret_cast<T *>(base + used);
        used += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    };
    take(s.rows, 1);
    take(s.x, slab_rows * m.latent_padded);
    take(s.x0, slab_rows * m.latent_padded);
    take(s.xt, slab_rows * m.latent_padded);
    take(s.split, 2 * slab_rows * m.latent_padded);
    take(s.h, slab_rows * m.hidden_padded);
    // The last layer keeps no h, so one layer needs no buffer and two need one.
    take(s.even, m.layers > 1 ? stacked * m.hidden_padded : 0);
    take(s.odd, m.layers > 2 ? stacked * m.hidden_padded : 0);
    take(s.u, stacked * m.hidden_padded);
    take(s.a, stacked * m.hidden_padded);
    return used;
}

inline int64_t layered_scratch(const Model &m, int64_t slab_rows) {
    alignas(256) static char nothing[1];  // sizes are differences of addresses; nothing is written
    Slab s;
    return place_slab(m, slab_rows, nothing, s);
}

// A product by mma, which every target has. Launched early it was 4 to 16 % slower on an H200 (`early` in
// launch.cuh; two blocks to a multiprocessor), where those by wgmma gain.
struct ByMma {
    static constexpr bool early = false;
    template <bool Narrow, class Epilogue>
    static void multiply(const Model &m, const Product &p, int64_t rows, const Epilogue &epilogue,
                         Stream stream) {
        const Grid grid = {(p.columns + gemm_columns - 1) / gemm_columns, static_cast<int>(rows / gemm_rows)};
        launch(gemm_kernel<Epilogue>, grid, gemm_threads, gemm_shared_bytes, stream, p, m, epilogue);
    }
};

// A product by wgmma; H' is a multiple of 128, so only products to K' and D' (Narrow) may have 64 columns
// over.
struct ByWarpgroup {
    static constexpr bool early = true;
    template <bool Narrow, class Epilogue>
    static void multiply(const Model &m, const Product &p, int64_t rows, const Epilogue &epilogue,
                         Stream stream) {
        const int height = static_cast<int>(rows / warpgroup_rows);
        if constexpr (Narrow) {
            if (p.columns % 128 != 0) {
                launch(warpgroup_kernel<4, Epilogue>, {p.columns / 64, height, 1, early}, warpgroup_threads,
                       warpgroup_shared_bytes<4>, stream, p, m, epilogue);
                return;
            }
        }
        launch(warpgroup_kernel<8, Epilogue>, {p.columns / 128, height, 1, early}, warpgroup_threads,
               warpgroup_shared_bytes<8>, stream, p, m, epilogue);
    }
};

// The same with copies in bulk, in clusters of two blocks where the columns allow it; 64 columns over do not.
struct ByBulk {
    static constexpr bool early = true;
    template <bool Narrow, class Epilogue>
    static void multiply(const Model &m, const Product &p, int64_t rows, const Epilogue &epilogue,
                         Stream stream) {
        const int height = static_cast<int>(rows / bulk_rows), width = p.columns / 128;
        if constexpr (Narrow) {
            if (p.columns % 128 != 0) {
                launch(bulk_kernel<4, 1, Epilogue>, {p.columns / 64, height, 1, early}, bulk_threads,
                       bulk_shared_bytes<4>, stream, p, m, epilogue);
                return;
            }
        }
        if (width % 2 == 0)
            launch(bulk_kernel<8, 2, Epilogue>, {width, height, 2, early}, bulk_threads, bulk_shared_bytes<8>,
                   stream, p, m, epilogue);
        else
            launch(bulk_kernel<8, 1, Epilogue>, {width, height, 1, early}, bulk_threads, bulk_shared_bytes<8>,
                   stream, p, m, epilogue);
    }
};

// All solver steps of the rows that s.rows describes.
template <class By, bool Guided>
void run_slab(const Model &m, const Slab &s, int64_t slab_rows, Stream stream) {
    auto multiply = [&](const Product &p, int64_t rows, const auto &epilogue) {
        By::template multiply<false>(m, p, rows, epilogue, stream);
    };
    auto multiply_narrow = [&](const Product &p, const auto &epilogue) {
        By::template multiply<true>(m, p, slab_rows, epilogue, stream);
    };
    const int latent = m.latent_padded, hidden = m.hidden_padded;
    const int64_t stacked = slab_rows * (Guided ? 2 : 1);
    const int64_t matrix = static_cast<int64_t>(hidden) * hidden * 2;
    auto items = [&](int columns) {
        return static_cast<int>((slab_rows * (columns / 4) + item_threads - 1) / item_threads);
    };
    auto layer_of = [&](const void *matrices, int layer) {
        return static_cast<const void *>(static_cast<const char *>(matrices) + layer * matrix);
    };
    launch(start_kernel, {items(latent), 1, 1, By::early}, item_threads, 0, stream, m, s, slab_rows);
    for (int step = 0; step < m.num_steps; ++step) {
        multiply(Product{s.xt, latent, m.input, latent, hidden}, slab_rows, InputEpilogue{s});
        const Product first = m.folded ? Product{s.xt, latent, m.first, latent, hidden}
                                       : Product{s.a, hidden, m.first, hidden, hidden};
        multiply(first, slab_rows, FirstEpilogue<Guided>{s, step});
        for (int layer = 0; layer < m.layers; ++layer) {
            const Product residual = {s.u, hidden, layer_of(m.w2, layer), hidden, hidden};
            if (layer + 1 < m.layers) {
                multiply(residual, stacked, ResidualEpilogue<Guided, false>(s, layer));
                const Product next = {s.a, hidden, layer_of(m.w1, layer), hidden, hidden};
                multiply(next, stacked, HiddenEpilogue<Guided>{s, step, layer + 1});
            } else {
                multiply(residual, stacked, ResidualEpilogue<Guided, true>(s, layer));
            }
        }
        multiply_narrow(Product{s.a, hidden, m.output, hidden, latent}, UpdateEpilogue{s, step});
    }
    if (m.matrix) {
        const Product transform = {s.split, 2 * latent, m.matrix, 3 * latent, m.dim_padded};
        multiply_narrow(transform, FeatureEpilogue{s});
    } else {
        launch(diagonal_kernel, {items(m.dim_padded), 1, 1, By::early}, item_threads, 0, stream, m, s,
               slab_rows);
    }
}

template <class By>
void run_slab(const Model &m, const Slab &s, int64_t slab_rows, Stream stream) {
    m.guidance != 1.0f ? run_slab<By, true>(m, s, slab_rows, stream)
                       : run_slab<By, false>(m, s, slab_rows, stream);
}

inline void run_slab(const Call &call, const Slab &s, Stream stream) {
    switch (call.tier) {
        case Tier::bulk:
            return run_slab<ByBulk>(call.model, s, call.slab, stream);
        case Tier::warpgroup:
            return run_slab<ByWarpgroup>(call.model, s, call.slab, stream);
        default:
            return run_slab<ByMma>(call.model, s, call.slab, stream);
    }
}

// Rows [from, from + count) of a call.
inline Rows part_of(const Rows &rows, const Model &m, int64_t from, int64_t count) {
    Rows part = rows;
    part.first_row += static_cast<uint64_t>(from);
    part.count = count;
    part.labels += from;
    part.out = static_cast<char *>(rows.out) + from * m.dim * (rows.out_dtype == Dtype::float32 ? 4 : 2);
    return part;
}

}  // namespace ldmlr::cuda
