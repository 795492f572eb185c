// A small sampling run without Python, for the sanitizers (csrc/tests/run.sh): every instruction set
// and type this processor has, odd sizes, fewer latent axes than features, one and several threads, an early
// stop. Rows must not depend on the threads, and must be finite.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "sampler_problem.h"

namespace {

using namespace ldmlr;
using namespace ldmlr::sampler_problem;

[[noreturn]] void fail(const char *what, const char *isa) {
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, isa);
    std::exit(1);
}

void check(const Kernels &kernels, Dtype dtype) {
    const Shape shapes[] = {{10, 10, 32, 1, 3}, {64, 64, 128, 2, 10}, {100, 100, 80, 3, 7},
                            {33, 33, 17, 2, 1}, {1, 1, 1, 1, 1},      {70, 9, 32, 1, 3},
                            {601, 33, 40, 2, 2}};
    for (const Shape &shape : shapes)
        for (const float guidance : {1.0f, 1.5f}) {
            Model model(kernels, dtype, shape, guidance);
            for (const int64_t rows : {1, 7, 63, 65, 500}) {
                bool finished = false;
                const std::vector<float> one = draw(kernels, model, dtype, rows, 1, false, &finished);
                if (!finished) fail("one thread did not finish", kernels.name);
                const std::vector<float> many = draw(kernels, model, dtype, rows, 4, false, &finished);
                if (!finished || one != many) fail("rows depend on the threads", kernels.name);
                for (const float value : one)
                    if (!(value >= 0.0f && value < 100.0f)) fail("a value out of range", kernels.name);
            }
        }
    // The poll comes after 50 ms; so many steps take longer than that.
    Model model(kernels, dtype, {64, 64, 64, 1, 2}, 1.5f);
    const std::vector<float> bias = random(4000, 64, 0.1f, 31);
    model.steps.assign(4000, model.steps[0]);
    model.params.steps = model.steps.data();
    model.params.num_steps = 4000;
    model.params.net.bias_step = bias.data();
    bool finished = true;
    draw(kernels, model, dtype, 5000, 3, true, &finished);
    if (finished) fail("the stop was not heard", kernels.name);
}

// A solver step of rows whose network is elsewhere: the ends of rows, of pieces and of vectors.
void check_step(const Kernels &kernels) {
    for (const int64_t dim : {1, 15, 64, 70, 301}) {
        std::vector<float> found[2];
        for (const int threads : {1, 3}) {
            std::vector<float> x(static_cast<size_t>(5 * dim), 0.5f), x0(x), f(x);
            StepParams params{};
            params.row = {0.9f, -0.4f, -5.0f, 5.0f, 0.7f, 0.4f, 0.1f, 0.2f};
            params.x = x.data();
            params.x0 = x0.data();
            params.f = f.data();
            params.rows = 5;
            params.dim = dim;
            denoise_step(kernels, params, threads);
            for (const float value : x)
                if (!(value > -2.0f && value < 3.0f)) fail("a step out of range", kernels.name);
            found[threads > 1] = x;
        }
        if (found[0] != found[1]) fail("a step depends on the threads", kernels.name);
    }
}

}  // namespace

int main() {
    for (const InstructionSet &set : instruction_sets()) {
        if (!set.available) continue;
        check_step(*set.kernels);
        check(*set.kernels, Dtype::float32);
        if (set.kernels->bfloat16.sample_tile) check(*set.kernels, Dtype::bfloat16);
        if (set.kernels->int8.sample_tile) check(*set.kernels, Dtype::int8);
        std::printf("%s ok\n", set.kernels->name);
    }
    return 0;
}
