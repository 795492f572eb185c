// A training on the device: its kernels in order, and the loop that looks at it from time to time.
#pragma once

#include <functional>
#include <vector>

#include "launch.cuh"
#include "train_rows.cuh"
#include "train_weights.cuh"

namespace ldmlr::cuda {

inline void start_training(const TrainParams &p, const TrainBuffers &b, uint32_t first, Stream stream) {
    launch(train_start_kernel, {32, train_matrices(p)}, update_threads, 0, stream, p, b, first);
}

// One step; which one is a number in the memory of the device, so that a graph of steps serves all of them.
// `first` is the step whose loss is losses[0].
inline void train_step(const TrainParams &p, const TrainBuffers &b, uint32_t first, Stream stream) {
    const int tiles = (p.batch + train_rows - 1) / train_rows;
    launch(train_rows_kernel, {tiles, 1}, train_threads, static_cast<size_t>(b.shared), stream, p, b);
    launch(train_weights_kernel, {update_blocks(p, b), 1}, update_threads, update_shared_bytes, stream, p, b,
           first);
}

// Share of the units that answer to their input, and the losses of the call so far, as the device knows them.
inline double look_at_training(const TrainParams &p, const TrainBuffers &b, uint32_t done, double *losses,
                               Stream stream) {
    const int blocks = (p.hidden + update_threads - 1) / update_threads;
    launch(train_answers_kernel, {blocks, 1}, update_threads, 0, stream, p, b);
    std::vector<int32_t> answers(static_cast<size_t>(p.hidden));
    download(answers.data(), b.answers, answers.size() * sizeof(int32_t), stream);
    download(losses, p.losses, done * sizeof(double), stream);
    int found = 0;
    for (const int32_t answer : answers) found += answer;
    return static_cast<double>(found) / p.hidden;
}

// Steps first .. first + count - 1, `run(n)` doing the next n; report(done, answering) is called behind those
// whose number is a multiple of `every`, and behind the last. When it returns true the training ends there,
// and false is returned.
template <class Run, class Look>
bool train_and_report(uint32_t first, uint32_t count, uint32_t every, const Run &run, const Look &look,
                      const std::function<bool(uint32_t, double)> &report) {
    for (uint32_t done = first, end = first + count; done < end;) {
        const uint32_t next = (done / every + 1) * every, stop = next < end ? next : end;
        run(stop - done);
        done = stop;
        if (report(done, look(done - first))) return false;
    }
    return true;
}

}  // namespace ldmlr::cuda
