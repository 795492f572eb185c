#include "pack.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace ldmlr {

namespace {

uint16_t round_to_bfloat(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// A matrix padded with zeros.
struct Padded {
    const float *matrix;
    int outputs, inputs;
    float operator()(int column, int k) const {
        return column < outputs && k < inputs ? matrix[static_cast<int64_t>(column) * inputs + k] : 0.0f;
    }
};

// The input at place `at` of an int8 operand: in a block of 64, fours are ordered by the lane of the
// vector they come from, then by vector.
int input_at(int at, int depth) {
    const int block = at / 64 * 64;
    if (block + 64 > depth) return at;
    const int four = (at - block) / 4;
    return block + 4 * (four % 4 * 4 + four / 4) + at % 4;
}

void pack_int8(const Padded &value, int panel, float factor, void *packed) {
    const int columns = padded(value.outputs), depth = padded(value.inputs);
    std::vector<int8_t> rounded(static_cast<size_t>(columns) * static_cast<size_t>(depth));
    int8_t *weights = static_cast<int8_t *>(packed);
    char *tail = static_cast<char *>(packed) + static_cast<int64_t>(columns) * depth;
    for (int column = 0; column < columns; ++column) {
        float largest = 0.0f;
        for (int k = 0; k < depth; ++k) largest = std::fmax(largest, std::fabs(value(column, k)));
        const float one = largest / 127.0f;
        int32_t sum = 0;
        for (int k = 0; k < depth; ++k) {
            const float ratio = one > 0.0f ? value(column, k) / one : 0.0f;
            const int8_t whole = static_cast<int8_t>(std::nearbyint(ratio));
            rounded[static_cast<size_t>(column) * static_cast<size_t>(depth) + static_cast<size_t>(k)] =
                whole;
            sum += whole;
        }
        const float scale = one / factor;
        const int32_t offset = -128 * sum;
        std::memcpy(tail + static_cast<int64_t>(column) * 4, &scale, 4);
        std::memcpy(tail + static_cast<int64_t>(columns + column) * 4, &offset, 4);
    }
    for (int first = 0; first < columns;) {
        const int width = panel_width(columns - first, panel);
        for (int at = 0; at < depth; at += 4)
            for (int j = 0; j < width; ++j)
                for (int i = 0; i < 4; ++i)
                    *weights++ = rounded[static_cast<size_t>(first + j) * static_cast<size_t>(depth) +
                                         static_cast<size_t>(input_at(at + i, depth))];
        first += width;
    }
}

}  // namespace

int64_t packed_size(int outputs, int inputs, Dtype dtype) {
    const int64_t columns = padded(outputs), values = columns * padded(inputs);
    if (dtype == Dtype::int8) return values + 8 * columns;
    return values * (dtype == Dtype::float32 ? 4 : 2);
}

void pack(const float *matrix, int outputs, int inputs, Dtype dtype, int panel, float factor, void *packed) {
    const Padded value = {matrix, outputs, inputs};
    if (dtype == Dtype::int8) return pack_int8(value, panel, factor, packed);
    const int columns = padded(outputs), depth = padded(inputs);
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
