// Training in the Python module: on the CPU and on a device.
#include "bindings.h"
#include "cpu/training.h"
#include "cuda/launch.h"
#include "cuda/train_buffers.h"

namespace ldmlr::bindings {

namespace {

void train(const std::string &isa, const TrainParams &params, Dtype products, uint32_t first, uint32_t count,
           int threads, uint32_t every, const py::object &progress) {
    kernels_of(isa);
    const TrainSet *set = find_train_set(isa.c_str());
    if (!set || (products == Dtype::bfloat16 && !set->bfloat16.tile))
        throw py::value_error("instruction set " + isa + " has no training with such products");
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = ldmlr::train(
            *set, params, products, first, count, threads, every,
            [&](uint32_t done, double answering) { return report(progress, done, answering); }, interrupted);
    }
    if (!finished) throw py::error_already_set();
}

void cuda_train(const cuda::TrainCall &call, uint32_t first, uint32_t count, uint32_t every,
                const py::object &progress) {
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = cuda::train(call, first, count, every, [&](uint32_t done, double answering) {
            return report(progress, done, answering);
        });
    }
    if (!finished) throw py::error_already_set();
}

}  // namespace

void def_train(py::module_ &m) {
    Struct<TrainParams>(m, "TrainParams")
        .field("latent", &TrainParams::latent)
        .field("hidden", &TrainParams::hidden)
        .field("layers", &TrainParams::layers)
        .field("classes", &TrainParams::classes)
        .field("batch", &TrainParams::batch)
        .field("share", &TrainParams::share)
        .field("tile", &TrainParams::tile)
        .field("prediction", &TrainParams::prediction)
        .field("resolution", &TrainParams::resolution)
        .field("answer", &TrainParams::answer)
        .field("seed", &TrainParams::seed)
        .field("dropped", &TrainParams::dropped)
        .field("z", &TrainParams::z)
        .field("order", &TrainParams::order)
        .field("first", &TrainParams::first)
        .field("rows", &TrainParams::rows)
        .field("cumulative", &TrainParams::cumulative)
        .field("alpha", &TrainParams::alpha)
        .field("sigma", &TrainParams::sigma)
        .field("features", &TrainParams::features)
        .field("importance", &TrainParams::importance)
        .field("steps", &TrainParams::steps)
        .field("state", &TrainParams::state)
        .field("losses", &TrainParams::losses);

    Struct<cuda::TrainCall>(m, "CudaTrainCall")
        .field("params", &cuda::TrainCall::params)
        .field("device", &cuda::TrainCall::device)
        .field("graph_steps", &cuda::TrainCall::graph_steps)
        .field("scratch", &cuda::TrainCall::scratch)
        .field("losses", &cuda::TrainCall::losses)
        .field("stream", &cuda::TrainCall::stream);

    m.def("train", &train, py::arg("isa"), py::arg("params"), py::arg("products"), py::arg("first"),
          py::arg("count"), py::arg("threads"), py::arg("every"), py::arg("progress"));
    m.def("train_numbers", &train_numbers, py::arg("params"));
    m.attr("cuda_train_rows") = cuda::train_rows;
    m.def("cuda_train_scratch_bytes", &cuda::train_scratch_bytes, py::arg("params"));
    m.def("cuda_train_shared_bytes", &cuda::train_shared_bytes, py::arg("params"));
    m.def("cuda_train", &cuda_train, py::arg("call"), py::arg("first"), py::arg("count"), py::arg("every"),
          py::arg("progress"));
}

}  // namespace ldmlr::bindings
