// A build without CUDA: there is nothing to call, and whoever calls is told so.
#include "launch.h"

#include <stdexcept>

namespace ldmlr::cuda {

namespace {

[[noreturn]] void missing() {
    throw std::runtime_error("this build has no CUDA kernels; install with LDMLR_CUDA=1 where nvcc is");
}

}  // namespace

const char *architectures() {
    return "";
}
void sample(const Call &) {
    missing();
}
int64_t scratch_bytes(const Model &, int64_t) {
    missing();
}
void forget(uint64_t) {}
void denoise_step(const StepParams &, int, void *) {
    missing();
}
void normals(const NoiseParams &, float *, int, void *) {
    missing();
}
bool train(const TrainCall &, uint32_t, uint32_t, uint32_t, const std::function<bool(uint32_t, double)> &) {
    missing();
}

}  // namespace ldmlr::cuda
