// The instruction sets of this build and of this processor.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace ldmlr {

struct InstructionSet {
    const Kernels *kernels;
    bool available;  // this processor and operating system can run it
};

// All instruction sets of this build, the slowest first.
std::vector<InstructionSet> instruction_sets();

// What the processor calls itself: CPUID's vendor, such as "AuthenticAMD", and display family and model.
// Empty and zeros where there is no CPUID.
struct Processor {
    std::string vendor;
    unsigned family = 0, model = 0;
};
Processor processor();

// The available one of this name, or null.
const Kernels *find_kernels(const char *name);

}  // namespace ldmlr
