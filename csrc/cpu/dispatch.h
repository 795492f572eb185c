// The instruction sets of this build and of this processor.
#pragma once

#include <vector>

#include "kernels.h"

namespace ldmlr {

struct InstructionSet {
    const Kernels *kernels;
    bool available;  // this processor and operating system can run it
};

// All instruction sets of this build, the slowest first.
std::vector<InstructionSet> instruction_sets();

// The available one of this name, or null.
const Kernels *find_kernels(const char *name);

}  // namespace ldmlr
