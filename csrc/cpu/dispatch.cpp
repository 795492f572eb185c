#include "dispatch.h"

#include <cstring>

namespace ldmlr {

extern const Kernels baseline;
#if defined(__x86_64__)
extern const Kernels avx2, avx512, avx512vnni, avx512bf16;
#endif

std::vector<InstructionSet> instruction_sets() {
    std::vector<InstructionSet> found = {{&baseline, true}};
#if defined(__x86_64__)
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    found.push_back({&avx2, fma});
    const bool bytes = __builtin_cpu_supports("avx512vnni");
    found.push_back({&avx512, fma && wide});
    found.push_back({&avx512vnni, fma && wide && bytes});
    // No processor has BF16 without VNNI.
    found.push_back({&avx512bf16, fma && wide && bytes && __builtin_cpu_supports("avx512bf16")});
#endif
    return found;
}

const Kernels *find_kernels(const char *name) {
    for (const InstructionSet &set : instruction_sets())
        if (set.available && std::strcmp(set.kernels->name, name) == 0) return set.kernels;
    return nullptr;
}

}  // namespace ldmlr
