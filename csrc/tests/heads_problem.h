// Made-up rows and a head with arrays that end with their last number: what the tests of softmax regression
// without Python share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>
#include "../cpu/dispatch.h"
#include "../cpu/softmax_call.h"
#include "../philox.h"

namespace ldmlr::heads_problem {

inline std::vector<float> normals(int count, uint64_t seed) {
    std::vector<float> found;
    for (int i = 0; i < count; ++i) {
        float pair[2];
        const Words words = row_words(seed, static_cast<uint64_t>(i), 0, 0, 0);
        box_muller(words.w[0], words.w[1], pair[0], pair[1]);
        found.push_back(pair[0]);
    }
    return found;
}

struct Problem {
    static constexpr int memory = 61;  // rows in memory
    int rows, dim, classes;
    std::vector<float> features, weight, bias, share, mean, scale;
    std::vector<int64_t> labels, chosen, partner;
    std::vector<float> gradient, bias_gradient;

    Problem(int rows, int dim, int classes)
        : rows(rows),
          dim(dim),
          classes(classes),
          features(normals(memory * dim, 1)),
          weight(normals(classes * dim, 2)),
          bias(normals(classes, 3)),
          mean(normals(dim, 4)),
          scale(static_cast<size_t>(dim), 0.5f) {
        for (int i = 0; i < memory; ++i) labels.push_back(i * 7 % classes);
        for (int i = 0; i < rows; ++i) {
            chosen.push_back(i * 11 % memory);
            partner.push_back(i * 13 % memory);
            share.push_back(0.5f + 0.5f / static_cast<float>(1 + i % 5));
        }
    }
    double run(const SoftmaxSet &set, Dtype products, int threads) {
        gradient.assign(weight.size(), 0.0f);
        bias_gradient.assign(bias.size(), 0.0f);
        SoftmaxParams p{};
        p.rows = rows;
        p.dim = dim;
        p.classes = classes;
        p.features = features.data();
        p.labels = labels.data();
        p.chosen = chosen.data();
        p.partner = partner.data();
        p.share = share.data();
        p.mean = mean.data();
        p.scale = scale.data();
        p.weight = weight.data();
        p.bias = bias.data();
        p.gradient = gradient.data();
        p.bias_gradient = bias_gradient.data();
        std::vector<char> bytes(static_cast<size_t>(softmax_memory(set, p, products, threads)));
        double loss = -1.0;
        if (!softmax(set, p, products, threads, bytes.data(), loss, [] { return false; })) std::abort();
        return loss;
    }
    double exact() const {
        double loss = 0.0;
        for (int i = 0; i < rows; ++i) {
            std::vector<double> z(bias.begin(), bias.end());
            for (int c = 0; c < classes; ++c)
                for (int d = 0; d < dim; ++d) {
                    const double s = share[i], a = features[chosen[i] * dim + d],
                                 b = features[partner[i] * dim + d];
                    z[c] += weight[c * dim + d] * ((s * a + (1 - s) * b - mean[d]) * scale[d]);
                }
            double total = 0.0;
            for (int c = 0; c < classes; ++c) total += std::exp(z[c]);
            loss += (std::log(total) - z[labels[chosen[i]]]) / rows;
        }
        return loss;
    }
};

}  // namespace ldmlr::heads_problem
