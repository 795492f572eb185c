// What a training keeps in memory: the padded state, the operands of its products, and the list of its tasks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "train.h"

namespace ldmlr {

class TrainMemory {
  public:
    // Lists all there is. `panel` is that of the instruction set, `paired` whether products are of bfloat16.
    TrainMemory(const TrainParams &params, int panel, bool paired);
    TrainMemory(const TrainMemory &) = delete;
    TrainMemory &operator=(const TrainMemory &) = delete;

    // Numbers of each of the plain state's four arrays.
    int64_t numbers() const { return plain_; }
    // Allocates everything, before there are threads; each has `scratch` bytes of its own. Once.
    void allocate(int threads, int64_t scratch);
    // Copies the plain state into the padded one, or back.
    void move(bool in);

    const Training &training() const { return t_; }
    const std::vector<TrainMatrix> &matrices() const { return matrices_; }
    const std::vector<TrainTask> &tasks() const { return tasks_; }
    // Of each thread.
    const std::vector<char *> &scratch() const { return scratch_; }

  private:
    // An array of the plain state: where it is therein and in the padded one.
    struct Part {
        int64_t plain, padded;
        int32_t outputs, inputs;                // of the plain one
        int32_t padded_outputs, padded_inputs;  // 0 inputs: rows of numbers, without panels
    };
    void list_arrays();
    void list_tasks();

    const int panel_;
    const bool paired_;
    Training t_{};
    int64_t plain_ = 0, total_ = 0;
    std::vector<Part> parts_;
    std::vector<TrainMatrix> matrices_;
    std::vector<TrainVector> vectors_;
    std::vector<TrainSlot> slots_;
    std::vector<TrainTask> tasks_;
    std::vector<char *> scratch_;
    std::unique_ptr<char, void (*)(void *)> memory_;
};

}  // namespace ldmlr
