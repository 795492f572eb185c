// A made-up model with arrays that end with their last number, and rows drawn with it: what the tests of the
// sampler without Python share.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>
#include "../cpu/dispatch.h"
#include "../cpu/pack.h"
#include "../cpu/sample.h"
#include "../philox.h"

namespace ldmlr::sampler_problem {

// Normals of the counter generator, padded rows included.
inline std::vector<float> random(int64_t rows, int columns, float scale, uint64_t seed) {
    std::vector<float> values(static_cast<size_t>(rows * padded(columns)), 0.0f);
    for (int64_t r = 0; r < rows; ++r)
        for (int d = 0; d < columns; ++d) {
            const Words words = row_words(seed, static_cast<uint64_t>(r), static_cast<uint32_t>(d), 0, 0);
            float z[2];
            box_muller(words.w[0], words.w[1], z[0], z[1]);
            values[static_cast<size_t>(r * padded(columns) + d)] = scale * z[0];
        }
    return values;
}

inline std::vector<char> packed(const Kernels &kernels, Dtype dtype, int outputs, int inputs, int count,
                                uint64_t seed) {
    const int64_t size = packed_size(outputs, inputs, dtype);
    std::vector<char> bytes(static_cast<size_t>(size * count));
    for (int i = 0; i < count; ++i) {
        std::vector<float> source = random(outputs, inputs, 0.5f / std::sqrt(static_cast<float>(inputs)),
                                           seed + static_cast<uint64_t>(i));
        std::vector<float> matrix;
        for (int r = 0; r < outputs; ++r)
            matrix.insert(matrix.end(), source.begin() + r * padded(inputs),
                          source.begin() + r * padded(inputs) + inputs);
        pack(matrix.data(), outputs, inputs, dtype, kernels.panel, 16.0f, bytes.data() + i * size);
    }
    return bytes;
}

struct Shape {
    int dim, latent, hidden, layers, classes;
};

struct Model {
    std::vector<char> input, first, w1, w2, output, matrix;
    std::vector<float> b_in, b2, b_out, bias_step, bias_class, quantise, mean, psi, floor, gain;
    std::vector<float> slope, curve;
    std::vector<StepRow> steps;
    SampleParams params{};

    // A square matrix is a triangle; where there are fewer axes, a remainder, gains and bends come with them.
    Model(const Kernels &kernels, Dtype dtype, const Shape &shape, float guidance) {
        const auto [dim, latent, hidden, layers, classes] = shape;
        const bool folded = latent < hidden, square = dim == latent;
        steps.assign(3, {0.9f, -0.4f, -5.0f, 5.0f, 0.7f, 0.4f, 0.1f, 0.2f});
        input = packed(kernels, dtype, hidden, latent, 1, 1);
        first = packed(kernels, dtype, hidden, folded ? latent : hidden, 1, 2);
        w1 = packed(kernels, dtype, hidden, hidden, layers - 1, 3);
        w2 = packed(kernels, dtype, hidden, hidden, layers, 13);
        output = packed(kernels, dtype, latent, hidden, 1, 23);
        matrix = packed(kernels, Dtype::float32, dim, latent, 1, 24);
        b_in = random(1, hidden, 0.1f, 25);
        b2 = random(layers, hidden, 0.1f, 26);
        b_out = random(1, latent, 0.1f, 27);
        bias_step = random(static_cast<int64_t>(steps.size()) * layers, hidden, 0.3f, 28);
        bias_class = random(static_cast<int64_t>(classes + 1) * layers, hidden, 0.3f, 29);
        mean = random(classes, dim, 1.0f, 30);
        psi = random(1, dim, 0.5f, 31);
        floor.assign(static_cast<size_t>(padded(dim)), 0.0f);
        slope.assign(static_cast<size_t>(classes) * floor.size(), 0.5f);
        curve.assign(slope.size(), 0.25f);
        gain.assign(steps.size() * static_cast<size_t>(classes), 0.5f);
        quantise.assign(static_cast<size_t>(2 * layers + 2), 16.0f);
        params.net = {latent,         hidden,       layers,       classes,          folded,
                      input.data(),   first.data(), w1.data(),    w2.data(),        output.data(),
                      b_in.data(),    b2.data(),    b_out.data(), bias_step.data(), bias_class.data(),
                      quantise.data()};
        params.transform = {dim,
                            square,
                            mean.data(),
                            nullptr,
                            matrix.data(),
                            square ? nullptr : psi.data(),
                            floor.data(),
                            square ? nullptr : slope.data(),
                            square ? nullptr : curve.data()};
        params.steps = steps.data();
        params.num_steps = static_cast<int32_t>(steps.size());
        params.guidance = guidance;
        params.gain = square ? nullptr : gain.data();
        params.seed = 5;
    }
};

inline std::vector<float> draw(const Kernels &kernels, Model &model, Dtype dtype, int64_t rows, int threads,
                               bool stop_early, bool *finished) {
    std::vector<int64_t> labels(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) labels[static_cast<size_t>(i)] = i % model.params.net.classes;
    std::vector<float> out(static_cast<size_t>(rows * model.params.transform.dim), -1.0f);
    model.params.labels = labels.data();
    model.params.out = out.data();
    model.params.out_dtype = Dtype::float32;
    model.params.rows = rows;
    std::vector<char> scratch(static_cast<size_t>(sample_scratch(kernels, model.params.net, dtype, threads)));
    *finished =
        sample(kernels, model.params, dtype, threads, scratch.data(), [&](int64_t) { return stop_early; });
    return out;
}

}  // namespace ldmlr::sampler_problem
