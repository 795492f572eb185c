// Small trainings without Python, for the sanitizers (csrc/tests/run.sh): every instruction set and type this
// processor has, odd sizes, one and several threads, steps in one call and in several, an early stop. The
// state must depend on neither threads nor calls, and losses must be finite and those of no answer at first.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "trainer_problem.h"

namespace {

using namespace ldmlr;
using namespace ldmlr::trainer_problem;

[[noreturn]] void fail(const char *what, const char *isa) {
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, isa);
    std::exit(1);
}

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
