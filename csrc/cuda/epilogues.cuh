// What follows each product of the layered tiers, on the part of a block's tile that a warp holds: M times 16
// rows by N times 16 columns (MmaTile in gemm.cuh, WarpgroupTile in warpgroup.cuh and bulk.cuh). Columns
// start at a multiple of 64.
//
// With guidance the rows of both classes go through the hidden layers together, stacked: 128 stacked rows are
// 64 rows with their class followed by the same 64 rows with the null class. The second half of a warp's rows
// lies 64 below the first, so both evaluations of a row are in one lane, and mixing them needs no exchange.
//
// Whatever a kernel reads here it does not write, but for x and x0, whose loads come before the stores of
// the same row by hand: the compiler may keep many loads under way.
#pragma once

#include "fragment.cuh"
#include "operand.cuh"

namespace ldmlr::cuda {

// Device memory of one slab of R rows; stacked buffers have 2 R rows with guidance, else R.
struct Slab {
    Rows *rows;         // filled before every run
    float *x, *x0;      // [R, K']
    uint16_t *xt;       // [R, K']    x as an operand (operand.cuh)
    uint16_t *split;    // [R, 2 K']  the final x as high and low part, an operand
    float *h;           // [R, H']    W_in x + b_in; as an operand in `a` where `first` reads it
    float *even, *odd;  // stacked, [.., H']: h behind even and odd layers
    uint16_t *u, *a;    // stacked, [.., H'], operands
};

LDMLR_DEVICE void store(float *to, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(to) = as_float4(v);
}

// Row numbers of a tile: `plain` rows as they are counted by the call, `stacked` as above.
template <bool Guided>
struct Stacking {
    LDMLR_DEVICE static int stacked(int plain) { return Guided ? plain / 64 * 128 + plain % 64 : plain; }
    LDMLR_DEVICE static int plain(int stacked) {
        return Guided ? stacked / 128 * 64 + stacked % 64 : stacked;
    }
    LDMLR_DEVICE static bool null(int stacked) { return Guided && stacked / 64 % 2 == 1; }
};

// Classes of rows; rows that only fill the slab are of class 0.
struct Labels {
    const int64_t *labels;
    int64_t count;
    LDMLR_DEVICE explicit Labels(const Slab &s) : labels(s.rows->labels), count(s.rows->count) {}
    LDMLR_DEVICE int64_t operator()(int row) const { return row < count ? load_constant(labels + row) : 0; }
};

// Calls f(i, half, row) for each row of the tile that a lane has a part of: c.v[i][..].v[half].
template <class Tile, class F>
LDMLR_DEVICE void for_each_row(const Tile &, int row0, Lane lane, const F &f) {
    LDMLR_UNROLL
    for (int i = 0; i < Tile::M; ++i) {
        LDMLR_UNROLL
        for (int half = 0; half < 2; ++half) f(i, half, row0 + Tile::row(i) + 8 * half + lane.g);
    }
}
constexpr int column_step = 16;  // from one group of columns to the next

// h = W_in x + b_in.
struct InputEpilogue {
    Slab s;
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        const int first = column0 + 4 * lane.t;
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            const OperandRow a(s.a, row, first, m.hidden_padded);
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&v)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                const int64_t at = static_cast<int64_t>(row) * m.hidden_padded + column;
                add(v, constant_at(m.b_in + column));
                store(s.h + at, v);
                if (!m.folded) a.store(n, v);
            }
        });
    }
};

// u = silu(first + biases), for the class and, guided, for the null class too.
template <bool Guided>
struct FirstEpilogue {
    Slab s;
    int step;
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        const int64_t per_class = static_cast<int64_t>(m.layers) * m.hidden_padded;
        const int first = column0 + 4 * lane.t;
        const Labels label_of(s);
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            const float *bias = m.bias_class + label_of(row) * per_class;
            const int stacked = Stacking<Guided>::stacked(row);
            const OperandRow u(s.u, stacked, first, m.hidden_padded);
            const OperandRow u_null(s.u, stacked + 64, first, m.hidden_padded);
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&v)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                add(v, constant_at(m.bias_step + step * per_class + column));
                float y[4] = {v[0], v[1], v[2], v[3]};
                add(y, constant_at(bias + column));
                silu(y);
                u.store(n, y);
                if constexpr (Guided) {
                    add(v, constant_at(m.bias_class + m.classes * per_class + column));
                    silu(v);
                    u_null.store(n, v);
                }
            }
        });
    }
};

// u = silu(W1_l h + biases), l > 0.
template <bool Guided>
struct HiddenEpilogue {
    Slab s;
    int step, layer;
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        using K = Stacking<Guided>;
        const int64_t per_class = static_cast<int64_t>(m.layers) * m.hidden_padded;
        const int64_t offset = static_cast<int64_t>(layer) * m.hidden_padded;
        const int first = column0 + 4 * lane.t;
        const Labels label_of(s);
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            const int64_t label = K::null(row) ? m.classes : label_of(K::plain(row));
            const float *bias = m.bias_class + label * per_class + offset;
            const OperandRow u(s.u, row, first, m.hidden_padded);
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&v)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                add(v, constant_at(m.bias_step + step * per_class + offset + column));
                add(v, constant_at(bias + column));
                silu(v);
                u.store(n, v);
            }
        });
    }
};

// h += W2_l u + b2_l; behind the last layer a = silu(h) with the classes mixed: f is linear in it.
template <bool Guided, bool Last>
struct ResidualEpilogue {
    Slab s;
    int layer;
    // The first block starts from h, which both classes share; the last keeps no h.
    const float *from;
    float *to;
    ResidualEpilogue(const Slab &slab, int number)
        : s(slab),
          layer(number),
          from(number == 0  ? slab.h
               : number % 2 ? slab.even
                            : slab.odd),
          to(number % 2 ? slab.odd : slab.even) {}
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        using K = Stacking<Guided>;
        const int first = column0 + 4 * lane.t;
        const float *b2 = m.b2 + static_cast<int64_t>(layer) * m.hidden_padded;
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            const int64_t read = static_cast<int64_t>(layer == 0 ? K::plain(row) : row) * m.hidden_padded;
            const OperandRow a(s.a, row, first, m.hidden_padded);
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&v)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                add(v, constant_at(from + read + column));
                add(v, constant_at(b2 + column));
                if constexpr (Last) {
                    silu(v);
                    if constexpr (!Guided) a.store(n, v);
                } else {
                    store(to + static_cast<int64_t>(row) * m.hidden_padded + column, v);
                    a.store(n, v);
                }
            }
        });
        if constexpr (Last && Guided) {
            for_each_row(c, row0, lane, [&](int i, int half, int row) {
                if (i >= Tile::M / 2) return;
                const OperandRow a(s.a, K::plain(row), first, m.hidden_padded);
                LDMLR_UNROLL
                for (int n = 0; n < Tile::N; ++n) {
                    float (&y)[4] = c.v[i][n].v[half];
                    const float (&null)[4] = c.v[i % (Tile::M / 2) + Tile::M / 2][n].v[half];
                    LDMLR_UNROLL
                    for (int e = 0; e < 4; ++e) y[e] = fmaf(m.guidance, y[e] - null[e], null[e]);
                    a.store(n, y);
                }
            });
        }
    }
};

// f = W_out a + b_out and the solver's step; behind the last step x as the operand of the transform.
struct UpdateEpilogue {
    Slab s;
    int step;
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        const StepRow values = m.steps[step];
        const bool last = step + 1 == m.num_steps && m.matrix != nullptr;
        const uint64_t number = s.rows->first_row;
        const int first = column0 + 4 * lane.t;
        const Labels label_of(s);
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            const int64_t at = static_cast<int64_t>(row) * m.latent_padded;
            const int64_t label = m.gain ? label_of(row) : 0;
            const OperandRow xt(s.xt, row, first, m.latent_padded);
            const OperandRow high(s.split, row, first, 2 * m.latent_padded);
            const OperandRow low(s.split, row, m.latent_padded + first, 2 * m.latent_padded);
            float4 x[Tile::N], before[Tile::N];
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                x[n] = vector_at(s.x + at + first + n * column_step);
                before[n] = vector_at(s.x0 + at + first + n * column_step);
            }
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&f)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                add(f, constant_at(m.b_out + column));
                if (m.gain) multiply_gain(m, step, label, f);
                float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                if (values.s != 0.0f)
                    normals4(m.seed, number + static_cast<uint64_t>(row), column / 4, m.latent, solver_stream,
                             static_cast<uint32_t>(step), z);
                float x0[4] = {before[n].x, before[n].y, before[n].z, before[n].w};
                float next[4] = {solver_step(values, x[n].x, f[0], z[0], x0[0]),
                                 solver_step(values, x[n].y, f[1], z[1], x0[1]),
                                 solver_step(values, x[n].z, f[2], z[2], x0[2]),
                                 solver_step(values, x[n].w, f[3], z[3], x0[3])};
                store(s.x + at + column, next);
                store(s.x0 + at + column, x0);
                xt.store(n, next);
                if (last) {
                    high.store(n, next);
                    LDMLR_UNROLL
                    for (int e = 0; e < 4; ++e) next[e] = low_part(next[e]);
                    low.store(n, next);
                }
            }
        });
    }
};

// row = max(floor, mean + matrix z + psi e).
struct FeatureEpilogue {
    Slab s;
    template <class Tile>
    LDMLR_DEVICE void operator()(const Model &m, Tile &c, int row0, int column0, Lane lane) const {
        const Rows rows = *s.rows;
        const int first = column0 + 4 * lane.t;
        for_each_row(c, row0, lane, [&](int i, int half, int row) {
            if (row >= rows.count) return;
            const float *mean = m.mean + rows.labels[row] * m.dim_padded;
            LDMLR_UNROLL
            for (int n = 0; n < Tile::N; ++n) {
                float (&v)[4] = c.v[i][n].v[half];
                const int column = first + n * column_step;
                add(v, constant_at(mean + column));
                add_remainder(m, rows.first_row + static_cast<uint64_t>(row), column, v);
                write4(m, rows, row, column, v);
            }
        });
    }
};

// Elementwise kernels, a thread for four columns of a row.

constexpr int item_threads = 256;

// x = the initial noise, x0 = 0.
LDMLR_KERNEL void LDMLR_BOUNDS(item_threads, 1)
    start_kernel(const Model m, const Slab s, const int64_t slab_rows) {
    wait_for_previous();
    const int vectors = m.latent_padded / 4;
    const int64_t item = static_cast<int64_t>(block_x()) * item_threads + thread_index();
    if (item >= slab_rows * vectors) return;
    const int64_t row = item / vectors, at = 4 * item;
    const int vector = static_cast<int>(item % vectors);
    float z[4], zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    normals4(m.seed, s.rows->first_row + static_cast<uint64_t>(row), vector, m.latent, start_stream, 0, z);
    store(s.x + at, z);
    store(s.x0 + at, zero);
    store_operand(s.xt + operand_at(static_cast<int>(row), 4 * vector, m.latent_padded), z);
}

// row = max(floor, mean + diagonal z + psi e).
LDMLR_KERNEL void LDMLR_BOUNDS(item_threads, 1)
    diagonal_kernel(const Model m, const Slab s, const int64_t slab_rows) {
    wait_for_previous();
    const int vectors = m.dim_padded / 4;
    const int64_t item = static_cast<int64_t>(block_x()) * item_threads + thread_index();
    const int64_t row = item / vectors;
    const Rows rows = *s.rows;
    if (row >= slab_rows || row >= rows.count) return;
    const int column = 4 * static_cast<int>(item % vectors);
    const float4 x = vector_at(s.x + row * m.latent_padded + column), d = vector_at(m.diagonal + column);
    const float4 mean = vector_at(m.mean + rows.labels[row] * m.dim_padded + column);
    float y[4] = {fmaf(d.x, x.x, mean.x), fmaf(d.y, x.y, mean.y), fmaf(d.z, x.z, mean.z),
                  fmaf(d.w, x.w, mean.w)};
    add_remainder(m, rows.first_row + static_cast<uint64_t>(row), column, y);
    write4(m, rows, row, column, y);
}

// The numbers of a call, where the kernels of a captured graph find them.
LDMLR_KERNEL void LDMLR_BOUNDS(32, 1) rows_kernel(const Rows rows, Rows *to) {
    if (thread_index() == 0) *to = rows;
}

}  // namespace ldmlr::cuda
