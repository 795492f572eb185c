#include "dispatch.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ldmlr {

extern const Kernels baseline;
#if defined(__x86_64__)
extern const Kernels avx2, avx512, avx512vnni, avx512bf16, amx;
#endif

namespace {

#if defined(__x86_64__)
// Whether the processor has AMX with bfloat16 and int8, and the system lets this process use its tiles.
// Linux asks for that once per process, as their 8 KB count in every signal's stack.
bool tiles_permitted() {
#if defined(__linux__)
    static const bool permitted = [] {
        unsigned a, b, c, d;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        constexpr unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
        if ((d & wanted) != wanted) return false;
        constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
        return syscall(SYS_arch_prctl, request, tile_data) == 0;
    }();
    return permitted;
#else
    return false;
#endif
}

// Whether the processor converts float16, which every one with AVX2 does, but a virtual machine may hide.
// Compilers before GCC 11 do not know the name for __builtin_cpu_supports.
bool converts_halves() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
#endif

}  // namespace

std::vector<InstructionSet> instruction_sets() {
    std::vector<InstructionSet> found = {{&baseline, true}};
#if defined(__x86_64__)
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_halves();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    found.push_back({&avx2, fma});
    const bool bytes = __builtin_cpu_supports("avx512vnni");
    found.push_back({&avx512, fma && wide});
    found.push_back({&avx512vnni, fma && wide && bytes});
    // No processor has BF16 without VNNI.
    const bool pairs = fma && wide && bytes && __builtin_cpu_supports("avx512bf16");
    found.push_back({&avx512bf16, pairs});
    found.push_back({&amx, pairs && tiles_permitted()});
#endif
    return found;
}

Processor processor() {
    Processor found;
#if defined(__x86_64__)
    unsigned a, words[3], version, b, c, d;
    if (!__get_cpuid(0, &a, &words[0], &words[2], &words[1])) return found;
    found.vendor.assign(reinterpret_cast<const char *>(words), sizeof(words));
    if (!__get_cpuid(1, &version, &b, &c, &d)) return found;
    const unsigned family = version >> 8 & 15, extended = version >> 20 & 255;
    found.family = family == 15 ? family + extended : family;
    found.model = version >> 4 & 15;
    if (family == 6 || family == 15) found.model |= (version >> 16 & 15) << 4;
#endif
    return found;
}

const Kernels *find_kernels(const char *name) {
    for (const InstructionSet &set : instruction_sets())
        if (set.available && std::strcmp(set.kernels->name, name) == 0) return set.kernels;
    return nullptr;
}

}  // namespace ldmlr
