// A made-up training with arrays that end with their last number: what the tests of the trainer without
// Python share.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>
#include "../cpu/dispatch.h"
#include "../cpu/training.h"
#include "../philox.h"

namespace ldmlr::trainer_problem {

struct Shape {
    int latent, hidden, layers, classes, batch, share;
};

constexpr int rows = 90, resolution = 256;
constexpr uint32_t steps = 5;

struct Problem {
    std::vector<float> z, alpha, sigma, features, importance, state;
    std::vector<int64_t> order, first, count;
    std::vector<uint32_t> cumulative;
    std::vector<TrainStep> table;
    std::vector<double> losses;
    TrainParams params{};

    explicit Problem(const Shape &shape) {
        const auto [latent, hidden, layers, classes, batch, share] = shape;
        const double turn = std::acos(-1.0) / 2;
        for (int i = 0; i < rows * latent; ++i) {
            float pair[2];
            const Words words = row_words(3, static_cast<uint64_t>(i), 0, 0, 0);
            box_muller(words.w[0], words.w[1], pair[0], pair[1]);
            z.push_back(pair[0]);
        }
        for (int i = 0; i < rows; ++i) order.push_back(rows - 1 - i);
        const int each = rows / classes;
        for (int c = 0; c < classes; ++c) {
            first.push_back(c * each);
            count.push_back(each);
            cumulative.push_back(
                c + 1 == classes ? 0xffffffffu : static_cast<uint32_t>((c + 1) * (4294967296.0 / classes)));
        }
        for (int i = 0; i <= resolution; ++i) {
            alpha.push_back(static_cast<float>(std::cos(turn * i / resolution)));
            sigma.push_back(static_cast<float>(std::sin(turn * i / resolution)));
            for (int j = 0; j < time_inputs; ++j)
                features.push_back(static_cast<float>(std::cos(0.01 * i * (j + 1))));
        }
        importance.assign(static_cast<size_t>(latent), 1.0f);
        for (uint32_t n = 1; n <= steps; ++n)
            table.push_back({1.0f, static_cast<float>(1e-3 / (1 - std::pow(0.9, n))),
                             static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, n))), 0.5f});
        params.latent = latent;
        params.hidden = hidden;
        params.layers = layers;
        params.classes = classes;
        params.batch = batch;
        params.share = share;
        params.tile = 64;
        params.resolution = resolution;
        params.answer = 1e-4f;
        params.seed = 11;
        params.dropped = 1u << 29;
        params.z = z.data();
        params.order = order.data();
        params.first = first.data();
        params.rows = count.data();
        params.cumulative = cumulative.data();
        params.alpha = alpha.data();
        params.sigma = sigma.data();
        params.features = features.data();
        params.importance = importance.data();
        params.steps = table.data();
        losses.assign(steps, 0.0);
        params.losses = losses.data();
    }

    void start() {
        const int64_t numbers = train_numbers(params);
        state.assign(static_cast<size_t>(4 * numbers), 0.0f);
        // Small and different, the last layer as well.
        for (int64_t i = 0; i < numbers; ++i) {
            const Words words = row_words(5, static_cast<uint64_t>(i), 0, 0, 0);
            state[static_cast<size_t>(i)] = (static_cast<float>(words.w[0]) * 0x1p-31f - 1.0f) * 0.05f;
        }
        params.state = state.data();
    }
};

}  // namespace ldmlr::trainer_problem
