#include "pack.h"

#include <cstring>

namespace ldmlr {

namespace {

uint16_t round_to_bfloat(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

int64_t packed_size(int outputs, int inputs, Dtype dtype) {
    return static_cast<int64_t>(padded(outputs)) * padded(inputs) * (dtype == Dtype::float32 ? 4 : 2);
}

void pack(const float *matrix, int outputs, int inputs, Dtype dtype, int panel, void *packed) {
    const int columns = padded(outputs), depth = padded(inputs);
    auto value = [&](int column, int k) {
        return column < outputs && k < inputs ? matrix[static_cast<int64_t>(column) * inputs + k] : 0.0f;
    };
    float *single = static_cast<float *>(packed);
    uint16_t *half = static_cast<uint16_t *>(packed);
    for (int first = 0; first < columns;) {
        const int width = panel_width(columns - first, panel);
        if (dtype == Dtype::float32) {
            for (int k = 0; k < depth; ++k)
                for (int j = 0; j < width; ++j) *single++ = value(first + j, k);
        } else {
            for (int k = 0; k < depth; k += 2)
                for (int j = 0; j < width; ++j) {
                    *half++ = round_to_bfloat(value(first + j, k));
                    *half++ = round_to_bfloat(value(first + j, k + 1));
                }
        }
        first += width;
    }
}

}  // namespace ldmlr
