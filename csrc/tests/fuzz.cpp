// Calls that libFuzzer chooses (csrc/tests/run.sh fuzz): shapes, row counts, numbers of rows and classes at
// the ends of their ranges, values that are no numbers. Every array ends with its last number, so that
// AddressSanitizer sees a read or a write beyond it. What Python has checked holds here as well: labels are
// classes, and arrays have the shapes of params.h, train.h and softmax.h. Bits must not depend on threads.
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <vector>

#include "heads_problem.h"
#include "sampler_problem.h"
#include "trainer_problem.h"

namespace {

using namespace ldmlr;

// The bytes of a case, as numbers; zeros behind the last.
struct Choices {
    const uint8_t *data;
    size_t size;

    uint32_t word() {
        uint32_t found = 0;
        for (int i = 0; i < 2 && size; ++i, ++data, --size) found = found << 8 | *data;
        return found;
    }
    int in(int first, int last) {
        return first + static_cast<int>(word() % static_cast<uint32_t>(last - first + 1));
    }
    template <typename T>
    const T &of(const std::vector<T> &from) {
        return from[word() % from.size()];
    }
};

float odd(Choices &choices) {
    using Float = std::numeric_limits<float>;
    return choices.of(std::vector<float>{0.0f, -0.0f, 1.0f, Float::quiet_NaN(), Float::infinity(),
                                         -Float::infinity(), Float::max(), Float::lowest(),
                                         Float::denorm_min(), 1e20f, -1e-20f});
}

// Puts values that are none into an array, or leaves it.
void poke(std::vector<float> &values, Choices &choices) {
    if (values.empty()) return;
    for (int n = choices.in(0, 3); n > 0; --n) values[choices.word() % values.size()] = odd(choices);
}

[[noreturn]] void fail() {
    __builtin_trap();
}

const Kernels &kernels_of(Choices &choices) {
    std::vector<const Kernels *> found;
    for (const InstructionSet &set : instruction_sets())
        if (set.available && set.kernels->float32.sample_tile) found.push_back(set.kernels);
    return *choices.of(found);
}

Dtype weights_of(const Kernels &kernels, Choices &choices) {
    std::vector<Dtype> found{Dtype::float32};
    if (kernels.bfloat16.sample_tile) found.push_back(Dtype::bfloat16);
    if (kernels.int8.sample_tile) found.push_back(Dtype::int8);
    return choices.of(found);
}

void sampling(Choices &choices) {
    using sampler_problem::Model;
    const Kernels &kernels = kernels_of(choices);
    const Dtype weights = weights_of(kernels, choices);
    const int dim = choices.in(1, 90), latent = choices.in(0, 1) ? dim : choices.in(1, dim);
    const sampler_problem::Shape shape{dim, latent, choices.in(1, 90), choices.in(1, 3), choices.in(1, 6)};
    Model model(kernels, weights, shape, choices.of(std::vector<float>{1.0f, 1.5f, 0.0f}));
    SampleParams &params = model.params;
    std::vector<float> diagonal(static_cast<size_t>(padded(dim)), 0.5f);
    if (dim == latent && choices.in(0, 1)) {
        params.transform.diagonal = diagonal.data();
        params.transform.matrix = nullptr;
        params.transform.triangular = 0;
    }
    params.num_steps = choices.in(1, static_cast<int>(model.steps.size()));
    params.seed = choices.in(0, 1) ? ~uint64_t{0} : choices.word();
    params.first_row = choices.in(0, 1) ? ~uint64_t{0} - choices.word() : choices.word();
    for (std::vector<float> *values :
         {&model.b_in, &model.b2, &model.b_out, &model.bias_step, &model.bias_class, &model.mean, &model.psi,
          &model.floor, &model.slope, &model.curve, &model.gain, &model.quantise})
        if (choices.in(0, 7) == 0) poke(*values, choices);
    const int rows = choices.in(0, 200);
    std::vector<int64_t> labels;
    for (int i = 0; i < rows; ++i) labels.push_back(choices.in(0, shape.classes - 1));
    params.rows = rows;
    params.labels = labels.data();
    params.out_dtype = choices.of(std::vector<Dtype>{Dtype::float32, Dtype::float16, Dtype::bfloat16});
    const size_t bytes =
        static_cast<size_t>(rows) * static_cast<size_t>(dim) * (params.out_dtype == Dtype::float32 ? 4 : 2);
    std::vector<std::vector<char>> found;
    for (const int threads : {1, choices.in(1, 5)}) {
        std::vector<char> out(bytes),
            scratch(static_cast<size_t>(sample_scratch(kernels, params.net, weights, threads)));
        params.out = out.data();
        if (!sample(kernels, params, weights, threads, scratch.data(), [](int64_t) { return false; })) fail();
        found.push_back(out);
    }
    if (found[0] != found[1]) fail();
}

void noise(Choices &choices) {
    const Kernels &kernels = kernels_of(choices);
    NoiseParams params{};
    params.seed = choices.word();
    params.first_row = choices.in(0, 1) ? ~uint64_t{0} - choices.word() : choices.word();
    params.rows = choices.in(0, 40);
    params.dim = choices.in(1, 70);
    params.stride = params.dim + choices.in(0, 20);
    params.stream = choices.word();
    params.step = choices.in(0, 1) ? ~uint32_t{0} : choices.word();
    // The last row ends with its numbers, not with its stride.
    std::vector<float> out(
        params.rows ? static_cast<size_t>((params.rows - 1) * params.stride + params.dim) : 0, -9.0f);
    kernels.normals(params, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
        const bool between = static_cast<int64_t>(i) % params.stride >= params.dim;
        if (between ? out[i] != -9.0f : !(out[i] > -9.0f && out[i] < 9.0f)) fail();
    }
}

void stepping(Choices &choices) {
    const Kernels &kernels = kernels_of(choices);
    StepParams params{};
    params.row = {odd(choices), 0.5f, -5.0f, 5.0f, 0.7f, odd(choices), 0.1f, 0.2f};
    params.rows = choices.in(0, 60);
    params.dim = choices.in(1, 70);
    params.first_row = ~uint64_t{0} - choices.word();
    std::vector<std::vector<float>> found;
    for (const int threads : {1, choices.in(1, 5)}) {
        std::vector<float> x(static_cast<size_t>(params.rows * params.dim), 0.5f), x0(x), f(x);
        params.x = x.data();
        params.x0 = x0.data();
        params.f = f.data();
        denoise_step(kernels, params, threads);
        found.push_back(x);
    }
    if (found[0].size() &&
        std::memcmp(found[0].data(), found[1].data(), found[0].size() * sizeof(float)) != 0)
        fail();
}

void training(Choices &choices) {
    using trainer_problem::Problem;
    const TrainSet &set = *find_train_set(kernels_of(choices).name);
    const Dtype products = set.bfloat16.tile && choices.in(0, 1) ? Dtype::bfloat16 : Dtype::float32;
    const trainer_problem::Shape shape{choices.in(1, 70),  choices.in(1, 90),
                                       choices.in(1, 3),   choices.in(1, 12),
                                       choices.in(1, 160), choices.of(std::vector<int>{1, 2, 8, 64})};
    Problem problem(shape);
    problem.params.seed = ~uint64_t{0} - choices.word();
    problem.params.tile = 64 * choices.in(1, 3);
    problem.params.dropped = choices.of(std::vector<uint32_t>{0, 1u << 29, ~uint32_t{0}});
    if (choices.in(0, 3) == 0) poke(problem.z, choices);
    const uint32_t count = static_cast<uint32_t>(choices.in(1, 3));
    std::vector<float> first;
    for (const int threads : {1, choices.in(1, 4)}) {
        problem.start();
        if (!train(
                set, problem.params, products, 0, count, threads, 1, [](uint32_t, double) { return false; },
                [] { return false; }))
            fail();
        if (first.empty()) first = problem.state;
    }
    if (std::memcmp(first.data(), problem.state.data(), first.size() * sizeof(float)) != 0) fail();
}

void softmax(Choices &choices) {
    using heads_problem::Problem;
    const SoftmaxSet &set = *find_softmax_set(kernels_of(choices).name);
    const Dtype products = set.bfloat16.tile && choices.in(0, 1) ? Dtype::bfloat16 : Dtype::float32;
    const int rows = choices.in(1, 300), dim = choices.in(1, 90), classes = choices.in(2, 150);
    Problem one(rows, dim, classes), many(rows, dim, classes);
    if (choices.in(0, 3) == 0) {
        poke(one.features, choices);
        many.features = one.features;
    }
    const double loss = one.run(set, products, 1), again = many.run(set, products, choices.in(1, 5));
    if (std::memcmp(&loss, &again, sizeof loss) != 0 ||
        std::memcmp(one.gradient.data(), many.gradient.data(), one.gradient.size() * sizeof(float)) != 0)
        fail();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Choices choices{data, size};
    constexpr void (*calls[])(Choices &) = {sampling, noise, stepping, training, softmax};
    calls[choices.word() % std::size(calls)](choices);
    return 0;
}
