// The CUDA trainer on real threads, for ThreadSanitizer (csrc/tests/run.sh thread): a missing barrier, or
// blocks of a launch that touch each other's memory, are races. Odd sizes, parts of blocks, more columns than
// threads, more biases of times than an operand of rows has numbers, more rows than a list of a block takes;
// the state is compared with that of the trainer of the CPU.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../cuda/train.cuh"
#include "trainer_problem.h"

namespace {

using namespace ldmlr;
using namespace ldmlr::trainer_problem;

// Largest difference of a weight behind the steps, each of which moves it by 1e-3.
constexpr float allowed = 2e-4f;

[[noreturn]] void fail(const char *what, const Shape &shape) {
    std::fprintf(stderr, "FAILED: %s (K %d, H %d, L %d, B %d)\n", what, shape.latent, shape.hidden,
                 shape.layers, shape.batch);
    std::exit(1);
}

void check(const Shape &shape, uint32_t count) {
    const auto report = [](uint32_t, double) { return false; };
    Problem expected(shape), found(shape);
    expected.start();
    train(*find_train_set("baseline"), expected.params, Dtype::float32, 0, count, 1, count, report,
          [] { return false; });
    found.start();
    const TrainParams &p = found.params;
    std::vector<char> room(static_cast<size_t>(cuda::train_scratch_bytes(p)) + 256);
    cuda::TrainBuffers b;
    cuda::place_train(p, room.data() + (256 - reinterpret_cast<uintptr_t>(room.data()) % 256), b);
    cuda::start_training(p, b, 0, nullptr);
    for (uint32_t step = 0; step < count; ++step) cuda::train_step(p, b, 0, nullptr);
    const double answering = cuda::look_at_training(p, b, count, found.losses.data(), nullptr);
    if (!(answering >= 0.0 && answering <= 1.0)) fail("a share out of range", shape);
    for (uint32_t step = 0; step < count; ++step)
        if (!(std::fabs(found.losses[step] - expected.losses[step]) <= 1e-5 * expected.losses[step] + 1e-7))
            fail("a loss is not that of the CPU", shape);
    const size_t numbers = expected.state.size() / 4;
    for (size_t i = 0; i < numbers; ++i)
        if (!(std::fabs(found.state[i] - expected.state[i]) <= allowed))
            fail("a weight is not that of the CPU", shape);
}

}  // namespace

int main() {
    check({5, 7, 3, 1, 13, 8}, 2);
    check({20, 70, 2, 3, 17, 8}, 1);
    check({530, 9, 1, 2, 9, 8}, 1);
    check({3, 5, 30, 2, 9, 8}, 1);
    check({2, 4, 1, 3, 270, 8}, 1);
    std::printf("training on a device: ok\n");
    return 0;
}
