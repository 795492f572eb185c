#include "fused_table.cuh"
#include "tiers.cuh"

namespace ldmlr::cuda {

void run_fused(const Call &call, Stream stream) {
    int multiprocessors = 0;
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, call.device),
          "multiprocessors");
    fused_shape(call.tier, call.model.latent_padded, call.model.hidden_padded)
        .run(call.model, call.rows, multiprocessors, stream);
}

}  // namespace ldmlr::cuda
