// The Python module ldmlr._native. Only the files called bindings know pybind11; training has one of its own.
//
// The plain structs of params.h and cuda/params.h are classes here, with the same fields in every build, with
// CUDA or without. A pointer is an integer: the address of a C-ordered array that Python has checked and
// keeps alive (ldmlr/sampler). A call takes such structs, releases the GIL and runs the kernel.
#include "bindings.h"
#include "cpu/pack.h"
#include "cpu/sample.h"
#include "cpu/softmax_call.h"
#include "cuda/launch.h"
#include "philox.h"

namespace ldmlr::bindings {

namespace {

py::tuple philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    const ldmlr::Words out = ldmlr::philox4x32({{c0, c1, c2, c3}}, k0, k1);
    return py::make_tuple(out.w[0], out.w[1], out.w[2], out.w[3]);
}

void standard_normal(const std::string &isa, const NoiseParams &params, Address out) {
    const Kernels &kernels = kernels_of(isa);
    const py::gil_scoped_release release;
    kernels.normals(params, pointer<float>(out));
}

py::list instruction_sets() {
    py::list found;
    for (const ldmlr::InstructionSet &set : ldmlr::instruction_sets())
        found.append(py::make_tuple(set.kernels->name, set.available,
                                    set.kernels->bfloat16.sample_tile != nullptr,
                                    set.kernels->int8.sample_tile != nullptr));
    return found;
}

void pack(const std::string &isa, Address matrix, int outputs, int inputs, Dtype dtype, float factor,
          Address packed) {
    const Kernels &kernels = kernels_of(isa);
    const py::gil_scoped_release release;
    ldmlr::pack(pointer<const float>(matrix), outputs, inputs, dtype, kernels.panel, factor,
                pointer<void>(packed));
}

void sample(const std::string &isa, const SampleParams &params, Dtype weights, int threads, Address scratch,
            const py::object &progress) {
    const Kernels &kernels = kernels_of(isa);
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = ldmlr::sample(kernels, params, weights, threads, pointer<void>(scratch),
                                 [&](int64_t rows) { return report(progress, rows); });
    }
    if (!finished) throw py::error_already_set();
}

const ldmlr::SoftmaxSet &softmax_of(const std::string &isa, Dtype products) {
    kernels_of(isa);
    const ldmlr::SoftmaxSet *set = ldmlr::find_softmax_set(isa.c_str());
    if (!set || (products == Dtype::bfloat16 && !set->bfloat16.tile))
        throw py::value_error("instruction set " + isa + " has no softmax with such products");
    return *set;
}

double softmax(const std::string &isa, const SoftmaxParams &params, Dtype products, int threads,
               Address memory) {
    const ldmlr::SoftmaxSet &set = softmax_of(isa, products);
    double loss = 0.0;
    bool finished;
    {
        const py::gil_scoped_release release;
        finished = ldmlr::softmax(set, params, products, threads, pointer<void>(memory), loss, interrupted);
    }
    if (!finished) throw py::error_already_set();
    return loss;
}

void denoise_step(const std::string &isa, const StepParams &params, int threads) {
    const Kernels &kernels = kernels_of(isa);
    const py::gil_scoped_release release;
    ldmlr::denoise_step(kernels, params, threads);
}

void def_structs(py::module_ &m) {
    py::enum_<Dtype>(m, "Dtype")
        .value("float32", Dtype::float32)
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16)
        .value("int8", Dtype::int8);

    Struct<Denoiser>(m, "Denoiser")
        .field("latent", &Denoiser::latent)
        .field("hidden", &Denoiser::hidden)
        .field("layers", &Denoiser::layers)
        .field("classes", &Denoiser::classes)
        .field("folded", &Denoiser::folded)
        .field("input", &Denoiser::input)
        .field("first", &Denoiser::first)
        .field("w1", &Denoiser::w1)
        .field("w2", &Denoiser::w2)
        .field("output", &Denoiser::output)
        .field("b_in", &Denoiser::b_in)
        .field("b2", &Denoiser::b2)
        .field("b_out", &Denoiser::b_out)
        .field("bias_step", &Denoiser::bias_step)
        .field("bias_class", &Denoiser::bias_class)
        .field("quantise", &Denoiser::quantise);

    Struct<Transform>(m, "Transform")
        .field("dim", &Transform::dim)
        .field("triangular", &Transform::triangular)
        .field("mean", &Transform::mean)
        .field("diagonal", &Transform::diagonal)
        .field("matrix", &Transform::matrix)
        .field("psi", &Transform::psi)
        .field("floor", &Transform::floor)
        .field("slope", &Transform::slope)
        .field("curve", &Transform::curve);

    Struct<SampleParams>(m, "SampleParams")
        .copied()
        .field("net", &SampleParams::net)
        .field("transform", &SampleParams::transform)
        .field("steps", &SampleParams::steps)
        .field("num_steps", &SampleParams::num_steps)
        .field("guidance", &SampleParams::guidance)
        .field("gain", &SampleParams::gain)
        .field("seed", &SampleParams::seed)
        .field("first_row", &SampleParams::first_row)
        .field("rows", &SampleParams::rows)
        .field("labels", &SampleParams::labels)
        .field("out", &SampleParams::out)
        .field("out_dtype", &SampleParams::out_dtype);

    Struct<NoiseParams>(m, "NoiseParams")
        .field("seed", &NoiseParams::seed)
        .field("first_row", &NoiseParams::first_row)
        .field("rows", &NoiseParams::rows)
        .field("dim", &NoiseParams::dim)
        .field("stride", &NoiseParams::stride)
        .field("stream", &NoiseParams::stream)
        .field("step", &NoiseParams::step);

    Struct<StepParams>(m, "StepParams")
        .field("row", &StepParams::row)
        .field("x", &StepParams::x)
        .field("x0", &StepParams::x0)
        .field("f", &StepParams::f)
        .field("rows", &StepParams::rows)
        .field("dim", &StepParams::dim)
        .field("seed", &StepParams::seed)
        .field("first_row", &StepParams::first_row)
        .field("step", &StepParams::step);

    Struct<SoftmaxParams>(m, "SoftmaxParams")
        .field("rows", &SoftmaxParams::rows)
        .field("dim", &SoftmaxParams::dim)
        .field("classes", &SoftmaxParams::classes)
        .field("features", &SoftmaxParams::features)
        .field("labels", &SoftmaxParams::labels)
        .field("chosen", &SoftmaxParams::chosen)
        .field("partner", &SoftmaxParams::partner)
        .field("share", &SoftmaxParams::share)
        .field("mean", &SoftmaxParams::mean)
        .field("scale", &SoftmaxParams::scale)
        .field("row_weights", &SoftmaxParams::row_weights)
        .field("weight", &SoftmaxParams::weight)
        .field("bias", &SoftmaxParams::bias)
        .field("gradient", &SoftmaxParams::gradient)
        .field("bias_gradient", &SoftmaxParams::bias_gradient);
}

void def_cpu(py::module_ &m) {
    m.def("philox4x32", &philox4x32, py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"),
          py::arg("k0"), py::arg("k1"));
    m.def("standard_normal", &standard_normal, py::arg("isa"), py::arg("params"), py::arg("out"));
    m.def("instruction_sets", &instruction_sets);
    m.def("processor", [] {
        const ldmlr::Processor found = ldmlr::processor();
        return py::make_tuple(found.vendor, found.family, found.model);
    });
    m.def("packed_size", &ldmlr::packed_size, py::arg("outputs"), py::arg("inputs"), py::arg("dtype"));
    m.def("pack", &pack, py::arg("isa"), py::arg("matrix"), py::arg("outputs"), py::arg("inputs"),
          py::arg("dtype"), py::arg("factor"), py::arg("packed"));
    m.def(
        "sample_scratch",
        [](const std::string &isa, const Denoiser &net, Dtype weights, int threads) {
            return ldmlr::sample_scratch(kernels_of(isa), net, weights, threads);
        },
        py::arg("isa"), py::arg("net"), py::arg("weights"), py::arg("threads"));
    m.def("sample", &sample, py::arg("isa"), py::arg("params"), py::arg("weights"), py::arg("threads"),
          py::arg("scratch"), py::arg("progress"));
    m.def(
        "peak",
        [](const std::string &isa, Dtype weights, int64_t iterations) {
            const Kernels &kernels = kernels_of(isa);
            const py::gil_scoped_release release;
            return kernels.of(weights).peak(iterations);
        },
        py::arg("isa"), py::arg("weights"), py::arg("iterations"));
    m.def("denoise_step", &denoise_step, py::arg("isa"), py::arg("params"), py::arg("threads"));
    m.def("softmax", &softmax, py::arg("isa"), py::arg("params"), py::arg("products"), py::arg("threads"),
          py::arg("memory"));
    m.def(
        "softmax_memory",
        [](const std::string &isa, const SoftmaxParams &params, Dtype products, int threads) {
            return ldmlr::softmax_memory(softmax_of(isa, products), params, products, threads);
        },
        py::arg("isa"), py::arg("params"), py::arg("products"), py::arg("threads"));
}

void def_cuda(py::module_ &m) {
    py::enum_<cuda::Tier>(m, "CudaTier")
        .value("layered", cuda::Tier::layered)
        .value("resident", cuda::Tier::resident)
        .value("streamed", cuda::Tier::streamed)
        .value("warpgroup", cuda::Tier::warpgroup)
        .value("bulk", cuda::Tier::bulk);

    Struct<cuda::Model>(m, "CudaModel")
        .field("dim", &cuda::Model::dim)
        .field("latent", &cuda::Model::latent)
        .field("hidden", &cuda::Model::hidden)
        .field("layers", &cuda::Model::layers)
        .field("classes", &cuda::Model::classes)
        .field("dim_padded", &cuda::Model::dim_padded)
        .field("latent_padded", &cuda::Model::latent_padded)
        .field("hidden_padded", &cuda::Model::hidden_padded)
        .field("num_steps", &cuda::Model::num_steps)
        .field("folded", &cuda::Model::folded)
        .field("guidance", &cuda::Model::guidance)
        .field("seed", &cuda::Model::seed)
        .field("input", &cuda::Model::input)
        .field("first", &cuda::Model::first)
        .field("w1", &cuda::Model::w1)
        .field("w2", &cuda::Model::w2)
        .field("output", &cuda::Model::output)
        .field("matrix", &cuda::Model::matrix)
        .field("diagonal", &cuda::Model::diagonal)
        .field("psi", &cuda::Model::psi)
        .field("floor", &cuda::Model::floor)
        .field("slope", &cuda::Model::slope)
        .field("curve", &cuda::Model::curve)
        .field("gain", &cuda::Model::gain)
        .field("mean", &cuda::Model::mean)
        .field("b_in", &cuda::Model::b_in)
        .field("b2", &cuda::Model::b2)
        .field("b_out", &cuda::Model::b_out)
        .field("bias_step", &cuda::Model::bias_step)
        .field("bias_class", &cuda::Model::bias_class)
        .field("steps", &cuda::Model::steps);

    Struct<cuda::Rows>(m, "CudaRows")
        .field("first_row", &cuda::Rows::first_row)
        .field("count", &cuda::Rows::count)
        .field("labels", &cuda::Rows::labels)
        .field("out", &cuda::Rows::out)
        .field("out_dtype", &cuda::Rows::out_dtype);

    Struct<cuda::Call>(m, "CudaCall")
        .field("model", &cuda::Call::model)
        .field("rows", &cuda::Call::rows)
        .field("tier", &cuda::Call::tier)
        .field("device", &cuda::Call::device)
        .field("slab", &cuda::Call::slab)
        .field("scratch", &cuda::Call::scratch)
        .field("stream", &cuda::Call::stream)
        .field("graph_key", &cuda::Call::graph_key);

    m.attr("cuda_architectures") = cuda::architectures();
    m.def("cuda_sample", &cuda::sample, py::arg("call"), ReleaseGil());
    m.def("cuda_scratch_bytes", &cuda::scratch_bytes, py::arg("model"), py::arg("slab"));
    m.def("cuda_forget", &cuda::forget, py::arg("graph_key"), ReleaseGil());
    m.def(
        "cuda_denoise_step",
        [](const StepParams &params, int device, Address stream) {
            cuda::denoise_step(params, device, pointer<void>(stream));
        },
        py::arg("params"), py::arg("device"), py::arg("stream"), ReleaseGil());
    m.def(
        "cuda_standard_normal",
        [](const NoiseParams &params, Address out, int device, Address stream) {
            cuda::normals(params, pointer<float>(out), device, pointer<void>(stream));
        },
        py::arg("params"), py::arg("out"), py::arg("device"), py::arg("stream"), ReleaseGil());
}

}  // namespace

}  // namespace ldmlr::bindings

PYBIND11_MODULE(_native, m) {
    using namespace ldmlr::bindings;
    m.doc() = "Kernels of ldmlr; use ldmlr.sampler and ldmlr.ops, which check their arguments.";
    m.attr("compiler") = __VERSION__;
    m.attr("padding") = ldmlr::padding;
    def_structs(m);
    def_cpu(m);
    def_cuda(m);
    def_train(m);
}
