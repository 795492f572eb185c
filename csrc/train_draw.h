// The draws of a training step, for host and device: pure functions of (seed, step, row of the batch), all
// of integers, so that every trainer draws the same. Noise is that of philox.h in the stream
// `train_noise_stream`.
#pragma once

#include "philox.h"
#include "train_params.h"

namespace ldmlr {

struct Draw {
    int64_t row;    // of z
    int32_t label;  // C where it is dropped
};

// The class by inverting the cumulative weights, then any row of it, then whether its label is dropped.
LDMLR_HOST_DEVICE Draw draw_row(const TrainParams &p, uint32_t step, int64_t row) {
    const Words words = row_words(p.seed, static_cast<uint64_t>(row), 0, train_row_stream, step);
    int low = 0, high = p.classes - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (words.w[0] <= p.cumulative[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    const uint64_t place = static_cast<uint64_t>(words.w[1]) * static_cast<uint64_t>(p.rows[low]) >> 32;
    const int64_t found = p.order[p.first[low] + static_cast<int64_t>(place)];
    return {found, words.w[2] < p.dropped ? p.classes : low};
}

// The times of a batch are stratified: each lies in a stratum of its own, as wide as its share of rows.
LDMLR_HOST_DEVICE int draw_time(const TrainParams &p, uint32_t step, int64_t time) {
    const Words words = row_words(p.seed, static_cast<uint64_t>(time), 0, train_time_stream, step);
    const int64_t first = time * p.share, rest = p.batch - first;
    const uint64_t rows = static_cast<uint64_t>(rest < p.share ? rest : p.share);
    const uint64_t within = words.w[0] * rows + (static_cast<uint64_t>(first) << 32);  // below B 2^32
    const uint64_t values = static_cast<uint64_t>(p.resolution) + 1;
    return static_cast<int>((within / static_cast<uint64_t>(p.batch)) * values >> 32);
}

}  // namespace ldmlr
