#include "softmax.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "softmax_call.h"
#include "subnormals.h"

namespace ldmlr {

extern const SoftmaxSet softmax_baseline;
#if defined(__x86_64__)
extern const SoftmaxSet softmax_avx2, softmax_avx512, softmax_avx512bf16;
#endif

namespace {

// Errors of a block: at most so many numbers (8 MiB), where its rows are more than the fewest.
constexpr int64_t most_errors = 1 << 21;
constexpr int64_t fewest_rows = 4 * softmax_rows, largest_block = 22 * softmax_rows;
constexpr int64_t line = 64;

// Lays a call out in memory, of the address 0 as well: what it takes.
class Layout {
  public:
    explicit Layout(uintptr_t base) : base_(base), next_((base + line - 1) / line * line) {}
    template <class T>
    T *take(int64_t bytes) {
        T *found = reinterpret_cast<T *>(next_);
        next_ += static_cast<uintptr_t>((bytes + 2 * line - 1) / line * line);  // two threads share no line
        return found;
    }
    int64_t taken() const { return static_cast<int64_t>(next_ - base_) + line; }

  private:
    uintptr_t base_, next_;
};

int block_rows(const SoftmaxParams &p) {
    const int64_t most = most_errors / padded(p.classes) / softmax_rows * softmax_rows;
    const int64_t needed = (p.rows + softmax_rows - 1) / softmax_rows * softmax_rows;
    return static_cast<int>(std::min(needed, std::clamp<int64_t>(most, fewest_rows, largest_block)));
}

const SoftmaxKernels &kernels_of(const SoftmaxSet &set, Dtype products) {
    return products == Dtype::bfloat16 ? set.bfloat16 : set.float32;
}

// Sets everything of `s` and returns the bytes from `base` on.
int64_t place(const SoftmaxSet &set, const SoftmaxParams &params, Dtype products, uintptr_t base, Softmax &s,
              std::vector<char *> &scratch) {
    s.p = params;
    s.block = block_rows(params);
    const int64_t inputs = padded(params.dim), outputs = padded(params.classes);
    const int64_t size = products == Dtype::bfloat16 ? 2 : 4;
    Layout memory(base);
    s.packed = memory.take<char>(inputs * outputs * size);
    s.bias = memory.take<float>(outputs * 4);
    s.x = memory.take<char>(s.block * inputs * size);
    s.errors = memory.take<char>(s.block * outputs * size);
    s.bias_sums = memory.take<double>(outputs * 8);
    s.row_loss = memory.take<double>(s.block * 8);
    const int64_t own = kernels_of(set, products).tile_scratch(s);
    for (char *&each : scratch) each = memory.take<char>(own);
    return memory.taken();
}

}  // namespace

const SoftmaxSet *find_softmax_set(const char *name) {
#if defined(__x86_64__)
    const struct {
        const char *name;
        const SoftmaxSet *set;
    } sets[] = {{"baseline", &softmax_baseline},     {"avx2", &softmax_avx2},
                {"avx512", &softmax_avx512},         {"avx512vnni", &softmax_avx512},
                {"avx512bf16", &softmax_avx512bf16}, {"amx", &softmax_avx512bf16}};
    for (const auto &entry : sets)
        if (std::strcmp(entry.name, name) == 0) return entry.set;
    return nullptr;
#else
    return std::strcmp(name, "baseline") == 0 ? &softmax_baseline : nullptr;
#endif
}

int64_t softmax_memory(const SoftmaxSet &set, const SoftmaxParams &params, Dtype products, int threads) {
    Softmax s{};
    std::vector<char *> scratch(static_cast<size_t>(threads));
    return place(set, params, products, 0, s, scratch);
}

bool softmax(const SoftmaxSet &set, const SoftmaxParams &params, Dtype products, int threads, void *memory,
             double &loss, const std::function<bool()> &poll) {
    const SoftmaxKernels &kernels = kernels_of(set, products);
    const int inputs = padded(params.dim), outputs = padded(params.classes);
    Softmax s{};
    std::vector<char *> scratch(static_cast<size_t>(threads));
    place(set, params, products, reinterpret_cast<uintptr_t>(memory), s, scratch);
    std::fill(s.bias_sums, s.bias_sums + outputs, 0.0);
    std::copy(params.bias, params.bias + params.classes, s.bias);
    std::fill(s.bias + params.classes, s.bias + outputs, -1e30f);

    const auto phase = [&](int64_t count, const auto &task) {
        return run_parallel(
            count, threads,
            [&](int64_t index, int worker, const Stop &) {
                [[maybe_unused]] const FlushSubnormals flush;
                task(static_cast<int>(index), scratch[static_cast<size_t>(worker)]);
            },
            [&](int64_t) { return poll(); });
    };
    if (!phase(outputs / 16, [&](int part, char *own) { kernels.pack(s, part, own); })) return false;
    const int parts =
        (outputs + softmax_classes - 1) / softmax_classes * ((inputs + set.panel - 1) / set.panel);
    loss = 0.0;
    for (int64_t first = 0; first < params.rows; first += s.block) {
        const SoftmaxBlock block = {first,
                                    static_cast<int32_t>(std::min<int64_t>(s.block, params.rows - first))};
        const int tiles = (block.count + softmax_rows - 1) / softmax_rows;
        if (!phase(tiles, [&](int tile, char *own) { kernels.tile(s, block, tile, own); })) return false;
        for (int i = 0; i < block.count; ++i) loss += s.row_loss[i];
        if (!phase(parts, [&](int part, char *) { kernels.part(s, block, part); })) return false;
    }
    for (int c = 0; c < params.classes; ++c) params.bias_gradient[c] = static_cast<float>(s.bias_sums[c]);
    return true;
}

}  // namespace ldmlr
