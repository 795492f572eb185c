// The fused tiers: a warp takes 16 rows through all layers and all solver steps in one launch.
//
// Activations never leave the registers: the accumulators of one product, packed to bfloat16, are the
// left operand of the next (fragment.cuh). The two products of a residual block run together over 16 hidden
// columns at a time, u = silu(W1 h + biases) and at once h += W2 u, so u is never whole. State x and last
// x0 lie in shared memory, each lane's own part: no barrier, no bank conflict. Warps work alone.
//
// Weights are read in one fixed order, the stream, in chunks (pack_stream in ldmlr/sampler/cuda/packing.py):
//
//   W_in | for c < H'/16: first of columns 16c.., W2_0 of inputs 16c.. | the same of W1_l, W2_l | W_out
//
//   resident  the whole stream stays in shared memory, copied once per block
//   streamed  chunks pass through a ring in shared memory, cp.async from L2, one barrier a chunk; W_in and
//             W_out are cut to their size
//
// Guidance evaluates the network for the class and for the null class. Tiles = 2 keeps both side by side in
// registers, so that each weight read from shared memory serves two products (H' <= 128); Tiles = 1 makes
// two passes over the stream. Reading a block of weights takes 4 cycles of the 128 bytes a cycle of
// shared memory and feeds 2 x Tiles products: one tile is bound to half the tensor rate by that, two are not.
//
// A row's arithmetic is the same in whatever warp, tile and call it is. D <= D', D' < H' or D' = H', and the
// first product is always the folded one (../params.h).
#pragma once

#include "stream.cuh"

namespace ldmlr::cuda {

// float4 of state per lane: x and x0, and the null class's output where it takes a pass of its own.
LDMLR_BOTH constexpr int state_vectors(int dim_tiles, bool two_passes) {
    return (two_passes ? 3 : 2) * dim_tiles * 2;
}

// 16 rows of one warp.
template <int DT, int HT, int Tiles, bool Guided, class Weights>
struct Unit {
    using S = Shape<DT, HT>;
    static constexpr int passes = Guided && Tiles == 1 ? 2 : 1;

    const Model &m;
    const Rows &rows;
    Weights &weights;
    float4 *x, *x0, *f_null;  // state, [DT][2][32 lanes]
    Lane lane;
    int index;      // of the lane
    int64_t first;  // local number of the first of the 16 rows

    LDMLR_DEVICE Unit(const Model &model, const Rows &call, Weights &stream, float4 *state, int lane_index,
                      int64_t first_row)
        : m(model),
          rows(call),
          weights(stream),
          x(state),
          x0(state + DT * 64),
          f_null(state + DT * 128),
          lane(lane_index),
          index(lane_index),
          first(first_row) {}

    LDMLR_DEVICE int64_t row(int i) const { return first + lane.g + 8 * i; }
    LDMLR_DEVICE int64_t label(int i) const { return row(i) < rows.count ? rows.labels[row(i)] : 0; }
    LDMLR_DEVICE int at(int tile, int i) const { return (tile * 2 + i) * 32 + index; }
    LDMLR_DEVICE Group state_group(const float4 *from, int tile) const {
        Group c;
        LDMLR_UNROLL
        for (int i = 0; i < 2; ++i) {
            const float4 v = from[at(tile, i)];
            c.v[i][0] = v.x;
            c.v[i][1] = v.y;
            c.v[i][2] = v.z;
            c.v[i][3] = v.w;
        }
        return c;
    }

    LDMLR_DEVICE void start() {
        LDMLR_LOOP
        for (int tile = 0; tile < DT; ++tile) LDMLR_UNROLL
        for (int i = 0; i < 2; ++i) {
            float z[4];
            normals4(m.seed, rows.first_row + static_cast<uint64_t>(row(i)), 4 * tile + lane.t, m.latent,
                     start_stream, 0, z);
            x[at(tile, i)] = as_float4(z);
            x0[at(tile, i)] = {0.0f, 0.0f, 0.0f, 0.0f};
        }
    }

    // All Tiles groups += operands times one row of blocks.
    template <int KT>
    LDMLR_DEVICE void multiply(Group (&c)[Tiles], const Operand (&a)[Tiles][KT], const uint4 *w) const {
        LDMLR_UNROLL
        for (int k = 0; k < KT; ++k) {
            const uint4 b = w[k * block_words + index];
            LDMLR_UNROLL
            for (int tile = 0; tile < Tiles; ++tile) product(c[tile], a[tile][k], b);
        }
    }

    // u = silu(c + biases) of the hidden columns 16 chunk ..; h += W2 u.
    LDMLR_DEVICE void hidden(Group (&c)[Tiles], Group (&h)[Tiles][HT], const float *(&bias)[2],
                             const float *null_bias, int64_t offset, const uint4 *w2) const {
        Operand u[Tiles];
        LDMLR_UNROLL
        for (int tile = 0; tile < Tiles; ++tile) {
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) {
                add(c[tile].v[i], constant_at((tile == 0 ? bias[i] : null_bias) + offset));
                silu(c[tile].v[i]);
            }
            u[tile] = to_operand(c[tile]);
        }
        LDMLR_UNROLL
        for (int n = 0; n < HT; ++n) {
            const uint4 b = w2[n * block_words + index];
            LDMLR_UNROLL
            for (int tile = 0; tile < Tiles; ++tile) product(h[tile][n], u[tile], b);
        }
    }

    // silu(h) as the operand of the last product, the classes mixed: f is linear in it.
    LDMLR_DEVICE void last_operands(Group (&h)[Tiles][HT], Operand (&a)[HT]) const {
        LDMLR_UNROLL
        for (int n = 0; n < HT; ++n) {
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) {
                LDMLR_UNROLL
                for (int tile = 0; tile < Tiles; ++tile) silu(h[tile][n].v[i]);
                if constexpr (Tiles == 2) {
                    LDMLR_UNROLL
                    for (int e = 0; e < 4; ++e) {
                        const float null = h[1][n].v[i][e];
                        h[0][n].v[i][e] = fmaf(m.guidance, h[0][n].v[i][e] - null, null);
                    }
                }
            }
            a[n] = to_operand(h[0][n]);
        }
    }

    // One evaluation of the network and, in the last pass, the solver's update of the state.
    LDMLR_DEVICE void evaluate(int step, int pass) {
        const int64_t per_class = static_cast<int64_t>(m.layers) * (16 * HT);
        const float *null_bias = m.bias_class + m.classes * per_class + 4 * lane.t;
        const float *step_bias = m.bias_step + step * per_class + 4 * lane.t;
        const float *bias[2];
        LDMLR_UNROLL
        for (int i = 0; i < 2; ++i) {
            bias[i] = m.bias_class + label(i) * per_class + 4 * lane.t;
            if (passes == 2 && pass == 0) bias[i] = null_bias;
        }
        Group h[Tiles][HT];
        {
            // Both tiles read the same x; the second only exists behind the first class bias.
            Operand xt[Tiles][DT];
            LDMLR_UNROLL
            for (int k = 0; k < DT; ++k) {
                xt[0][k] = to_operand(state_group(x, k));
                if constexpr (Tiles == 2) xt[1][k] = xt[0][k];
            }
            const uint4 *w = nullptr;
            LDMLR_UNROLL
            for (int n = 0; n < HT; ++n) {
                const int of_piece = n % S::input_groups;
                if (of_piece == 0) w = weights.chunk(S::pair);
                fill(h[0][n], constant_at(m.b_in + 16 * n + 4 * lane.t));
                LDMLR_UNROLL
                for (int k = 0; k < DT; ++k)
                    product(h[0][n], xt[0][k], w[(of_piece * DT + k) * block_words + index]);
                add_b2(h[0][n], 0, n);
                if constexpr (Tiles == 2) h[1][n] = h[0][n];
            }
            LDMLR_LOOP
            for (int chunk = 0; chunk < HT; ++chunk) {
                w = weights.chunk(S::first);
                Group c[Tiles];
                fill(c[0], constant_at(step_bias + 16 * chunk));
                LDMLR_UNROLL
                for (int k = 0; k < DT; ++k) product(c[0], xt[0][k], w[k * block_words + index]);
                if constexpr (Tiles == 2) c[1] = c[0];
                hidden(c, h, bias, null_bias, 16 * chunk, w + DT * block_words);
            }
        }
        LDMLR_LOOP
        for (int layer = 1; layer < m.layers; ++layer) {
            Operand a[Tiles][HT];
            LDMLR_UNROLL
            for (int n = 0; n < HT; ++n) LDMLR_UNROLL
            for (int tile = 0; tile < Tiles; ++tile) {
                a[tile][n] = to_operand(h[tile][n]);
                add_b2(h[tile][n], layer, n);
            }
            LDMLR_LOOP
            for (int chunk = 0; chunk < HT; ++chunk) {
                const uint4 *w = weights.chunk(S::pair);
                const int64_t offset = (layer * HT + chunk) * 16;
                Group c[Tiles];
                LDMLR_UNROLL
                for (int tile = 0; tile < Tiles; ++tile) fill(c[tile], constant_at(step_bias + offset));
                multiply(c, a, w);
                hidden(c, h, bias, null_bias, offset, w + HT * block_words);
            }
        }
        Operand a[HT];
        last_operands(h, a);
        const uint4 *w = nullptr;
        const StepRow row_of_step = m.steps[step];
        LDMLR_LOOP
        for (int n = 0; n < DT; ++n) {
            const int of_piece = n % S::output_groups;
            if (of_piece == 0) w = weights.chunk(S::pair);
            Group f;
            fill(f, constant_at(m.b_out + 16 * n + 4 * lane.t));
            LDMLR_UNROLL
            for (int k = 0; k < HT; ++k) product(f, a[k], w[(of_piece * HT + k) * block_words + index]);
            update(row_of_step, step, pass, n, f);
        }
    }

    LDMLR_DEVICE void add_b2(Group &c, int layer, int n) const {
        const float4 b = constant_at(m.b2 + (layer * HT + n) * 16 + 4 * lane.t);
        add(c.v[0], b);
        add(c.v[1], b);
    }

    LDMLR_DEVICE void update(const StepRow &s, int step, int pass, int n, Group &f) {
        if (passes == 2 && pass == 0) {
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) f_null[at(n, i)] = as_float4(f.v[i]);
            return;
        }
        Group state = state_group(x, n), previous = state_group(x0, n);
        if constexpr (passes == 2) {
            const Group null = state_group(f_null, n);
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) LDMLR_UNROLL
            for (int e = 0; e < 4; ++e) f.v[i][e] = fmaf(m.guidance, f.v[i][e] - null.v[i][e], null.v[i][e]);
        }
        LDMLR_UNROLL
        for (int i = 0; i < 2; ++i) {
            if (m.gain) multiply_gain(m, step, label(i), f.v[i]);
            float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (s.s != 0.0f)
                normals4(m.seed, rows.first_row + static_cast<uint64_t>(row(i)), 4 * n + lane.t, m.latent,
                         solver_stream, static_cast<uint32_t>(step), z);
            LDMLR_UNROLL
            for (int e = 0; e < 4; ++e)
                state.v[i][e] = solver_step(s, state.v[i][e], f.v[i][e], z[e], previous.v[i][e]);
            x[at(n, i)] = as_float4(state.v[i]);
            x0[at(n, i)] = as_float4(previous.v[i]);
        }
    }

    // row = max(floor, mean + scale z + psi e); a matrix in three products of high and low parts.
    LDMLR_DEVICE void finish() const {
        Operand high[DT], low[DT];
        LDMLR_UNROLL
        for (int k = 0; k < DT; ++k) {
            Group z = state_group(x, k);
            high[k] = to_operand(z);
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) LDMLR_UNROLL
            for (int e = 0; e < 4; ++e) z.v[i][e] = low_part(z.v[i][e]);
            low[k] = to_operand(z);
        }
        const uint4 *matrix = static_cast<const uint4 *>(m.matrix);
        LDMLR_LOOP
        for (int n = 0; n < m.dim_padded / 16; ++n) {
            const int column = 16 * n + 4 * lane.t;
            Group y;
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) {
                const float4 mean = constant_at(m.mean + label(i) * m.dim_padded + column);
                y.v[i][0] = mean.x;
                y.v[i][1] = mean.y;
                y.v[i][2] = mean.z;
                y.v[i][3] = mean.w;
            }
            if (matrix) {
                const uint4 *w = matrix + n * 3 * DT * block_words + index;
                LDMLR_UNROLL
                for (int k = 0; k < DT; ++k) product(y, high[k], load_constant(w + k * block_words));
                LDMLR_UNROLL
                for (int k = 0; k < DT; ++k) product(y, low[k], load_constant(w + (DT + k) * block_words));
                LDMLR_UNROLL
                for (int k = 0; k < DT; ++k)
                    product(y, high[k], load_constant(w + (2 * DT + k) * block_words));
            } else {
                const float4 d = constant_at(m.diagonal + column);
                LDMLR_UNROLL
                for (int i = 0; i < 2; ++i) {
                    const float4 z = x[at(n, i)];
                    y.v[i][0] = fmaf(d.x, z.x, y.v[i][0]);
                    y.v[i][1] = fmaf(d.y, z.y, y.v[i][1]);
                    y.v[i][2] = fmaf(d.z, z.z, y.v[i][2]);
                    y.v[i][3] = fmaf(d.w, z.w, y.v[i][3]);
                }
            }
            LDMLR_UNROLL
            for (int i = 0; i < 2; ++i) {
                if (row(i) >= rows.count) continue;
                add_remainder(m, rows.first_row + static_cast<uint64_t>(row(i)), column, y.v[i]);
                write4(m, rows, row(i), column, y.v[i]);
            }
        }
    }
};

// Units of 16 rows go to blocks in turn, so that a short call reaches every multiprocessor.
template <int DT, int HT, int Tiles, bool Guided, template <int, int> class Weights>
LDMLR_KERNEL void LDMLR_BOUNDS(fused_threads, 1) fused_kernel(const Model m, const Rows rows) {
    using W = Weights<DT, HT>;
    using U = Unit<DT, HT, Tiles, Guided, W>;
    char *memory = shared_memory();
    W weights(m, memory);
    const int warp = thread_index() / 32, lane = thread_index() % 32;
    float4 *state = reinterpret_cast<float4 *>(memory + W::bytes(m.layers)) +
                    warp * 32 * state_vectors(DT, U::passes == 2);
    const int64_t units = (rows.count + 15) / 16, stride = static_cast<int64_t>(blocks_x()) * fused_warps;
    for (int64_t round = block_x(); round < units; round += stride) {
        const int64_t unit = round + static_cast<int64_t>(warp) * blocks_x();
        // With a ring all warps take part in every chunk; rows that do not exist are never written.
        if (!W::block_wide && unit >= units) break;
        U rows_of_warp(m, rows, weights, state, lane, 16 * unit);
        rows_of_warp.start();
        LDMLR_LOOP
        for (int step = 0; step < m.num_steps; ++step) LDMLR_LOOP
        for (int pass = 0; pass < U::passes; ++pass) {
            weights.rewind();
            rows_of_warp.evaluate(step, pass);
        }
        rows_of_warp.finish();
    }
    copy_wait<0>();
}

}  // namespace ldmlr::cuda
