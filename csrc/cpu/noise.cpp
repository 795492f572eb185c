// The normals of csrc/philox.h for a block of rows, one counter at a time.
#include "noise.h"

#include <algorithm>

#include "../philox.h"

namespace ldmlr {

void standard_normal(const NoiseParams &params, float *out) {
    for (int64_t i = 0; i < params.rows; ++i) {
        float *row = out + i * params.dim;
        for (int64_t d = 0; d < params.dim; d += 4) {
            const Words words = row_words(params.seed, params.first_row + static_cast<uint64_t>(i),
                                          static_cast<uint32_t>(d / 4), params.stream, params.step);
            float z[4];
            box_muller(words.w[0], words.w[1], z[0], z[1]);
            box_muller(words.w[2], words.w[3], z[2], z[3]);
            std::copy(z, z + std::min<int64_t>(4, params.dim - d), row + d);
        }
    }
}

}  // namespace ldmlr
