// Standard normals on the device: the function of philox.h, one thread per block of four.
//
// Equal to the bit to the CPU and to the NumPy reference by construction: the same correctly
// rounded operations in the same order (philox.h). Compiled for every target; not yet run.
#include "../philox.h"

namespace ldmlr {

// out [rows, dim]; grid: x over blocks of four dims, y over rows.
__global__ void normals_kernel(float *out, uint64_t seed, uint64_t first_row, uint32_t rows, uint32_t dim,
                               uint32_t stream, uint32_t step) {
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * block >= dim) return;
    for (uint32_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const Words words = row_words(seed, first_row + row, block, stream, step);
        float n[4];
        box_muller(words.w[0], words.w[1], n[0], n[1]);
        box_muller(words.w[2], words.w[3], n[2], n[3]);
        float *target = out + static_cast<size_t>(row) * dim + 4 * block;
        for (uint32_t i = 0; i < 4 && 4 * block + i < dim; ++i) target[i] = n[i];
    }
}

}  // namespace ldmlr
