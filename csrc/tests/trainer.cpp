// Small trainings without Python, for the sanitizers (csrc/tests/run.sh): every instruction set and type this
// processor has, odd sizes, one and several threads, steps in one call and in several, an early stop. The
// state must depend on neither threads nor calls, and losses must be finite and those of no answer at first.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../cpu/dispatch.h"
#include "../cpu/training.h"
#include "../philox.h"

namespace {

using namespace ldmlr;

[[noreturn]] void fail(const char *what, const char *isa) {
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, isa);
    std::exit(1);
}

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

void check(const TrainSet &set, Dtype products, const char *isa) {
    const Shape shapes[] = {{10, 16, 1, 3, 64, 8}, {33, 40, 2, 5, 150, 8}, {5, 7, 3, 1, 13, 1},
                            {1, 1, 1, 1, 1, 64},   {70, 130, 2, 3, 70, 4}, {64, 128, 2, 40, 200, 8}};
    const auto never = [] { return false; };
    for (const Shape &shape : shapes) {
        Problem problem(shape);
        std::vector<float> whole;
        for (const int threads : {1, 2, 4}) {
            problem.params.tile = 64 * threads;
            problem.start();
            uint32_t reports = 0;
            const auto report = [&](uint32_t, double answering) {
                ++reports;
                if (!(answering >= 0.0 && answering <= 1.0)) fail("a share out of range", isa);
                return false;
            };
            if (threads == 2) {
                // Two calls, the second in the middle.
                if (!train(set, problem.params, products, 0, 2, threads, 50, report, never) ||
                    !train(set, problem.params, products, 2, steps - 2, threads, 50, report, never))
                    fail("a training did not finish", isa);
            } else if (!train(set, problem.params, products, 0, steps, threads, 2, report, never)) {
                fail("a training did not finish", isa);
            }
            if (reports != (threads == 2 ? 2u : 3u)) fail("a wrong number of reports", isa);
            // Of a few rows alone the loss may be anything: it is a mean of squares of normal numbers.
            const bool many = shape.batch * shape.latent > 500;
            for (const double loss : problem.losses)
                if (!(std::isfinite(loss) && loss >= 0.0 && (!many || (loss > 0.2 && loss < 3.0))))
                    fail("a loss out of range", isa);
            if (whole.empty()) whole = problem.state;
            if (whole != problem.state) fail("the state depends on threads or calls", isa);
        }
    }
    Problem problem(shapes[0]);
    problem.start();
    if (train(
            set, problem.params, products, 0, steps, 3, 1, [](uint32_t done, double) { return done == 2; },
            never))
        fail("the stop was not heard", isa);
}

}  // namespace

int main() {
    for (const InstructionSet &entry : instruction_sets()) {
        if (!entry.available) continue;
        const TrainSet *set = find_train_set(entry.kernels->name);
        if (!set) fail("no kernels", entry.kernels->name);
        check(*set, Dtype::float32, entry.kernels->name);
        if (set->bfloat16.tile) check(*set, Dtype::bfloat16, entry.kernels->name);
        std::printf("training: %s ok\n", entry.kernels->name);
    }
    return 0;
}
