// Standard normals into an array [rows, dim]; csrc/philox.h defines the values.
#pragma once

#include <cstdint>

namespace ldmlr {

struct NoiseParams {
    uint64_t seed;
    uint64_t first_row;
    int64_t rows;
    int64_t dim;
    uint32_t stream;
    uint32_t step;
};

// Writes rows * dim normals to out, C order.
void standard_normal(const NoiseParams &params, float *out);

}  // namespace ldmlr
