// Softmax regression without Python, for the sanitizers (csrc/tests/run.sh): every instruction set and type
// this processor has, sizes around tiles and panels, one and several threads, memory to the byte. Bits must
// not depend on threads, and losses must be those of float64 within what the type keeps.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "heads_problem.h"

namespace {

using namespace ldmlr;
using namespace ldmlr::heads_problem;

[[noreturn]] void fail(const char *what, const char *isa) {
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, isa);
    std::exit(1);
}

}  // namespace

int main() {
    const int sizes[][3] = {{1, 1, 2}, {2, 15, 16}, {47, 33, 49}, {97, 80, 65}, {1100, 17, 130}};
    for (const InstructionSet &found : instruction_sets()) {
        if (!found.available) continue;
        const char *name = found.kernels->name;
        const SoftmaxSet &set = *find_softmax_set(name);
        for (const Dtype products : {Dtype::float32, Dtype::bfloat16}) {
            if (products == Dtype::bfloat16 && !set.bfloat16.tile) continue;
            for (const auto &[rows, dim, classes] : sizes) {
                Problem one(rows, dim, classes), many(rows, dim, classes);
                const double loss = one.run(set, products, 1), wanted = one.exact();
                if (loss != many.run(set, products, 3) || one.gradient != many.gradient ||
                    one.bias_gradient != many.bias_gradient)
                    fail("threads change bits", name);
                const double kept = products == Dtype::bfloat16 ? 3e-2 : 1e-5;
                if (!(std::fabs(loss - wanted) <= kept * (1 + std::fabs(wanted)))) fail("loss", name);
            }
        }
    }
    std::puts("heads ok");
    return 0;
}
