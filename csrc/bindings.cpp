// The Python module ldmlr._native, and the only file that knows pybind11.
//
// Arguments are integers and addresses of C-ordered arrays that Python has checked and keeps
// alive (ldmlr/sampler/noise.py, ldmlr/sampler/cpu/sampler.py); here they become the plain structs of params.h, the
// GIL is released and the kernel runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/pack.h"
#include "cpu/sample.h"
#include "cuda/launch.h"
#include "philox.h"

namespace py = pybind11;
using ldmlr::Denoiser;
using ldmlr::Dtype;
using ldmlr::Kernels;
using ldmlr::SampleParams;
using ldmlr::Transform;
using Address = uintptr_t;

namespace {

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

// Makes a pointer member of a struct an integer attribute.
template <class C, class S, class T>
void def_address(C &binding, const char *name, T *S::*member) {
    binding.def_property(
        name, [member](const S &s) { return reinterpret_cast<Address>(s.*member); },
        [member](S &s, Address address) { s.*member = pointer<T>(address); });
}

const Kernels &kernels_of(const std::string &isa) {
    const Kernels *kernels = ldmlr::find_kernels(isa.c_str());
    if (!kernels) throw py::value_error("instruction set " + isa + " is not available");
    return *kernels;
}

py::tuple philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    const ldmlr::Words out = ldmlr::philox4x32({{c0, c1, c2, c3}}, k0, k1);
    return py::make_tuple(out.w[0], out.w[1], out.w[2], out.w[3]);
}

void standard_normal(const std::string &isa, uint64_t seed, uint64_t first_row, int64_t rows, int64_t dim,
                     uint32_t stream, uint32_t step, Address out) {
    const Kernels &kernels = kernels_of(isa);
    const py::gil_scoped_release release;
    kernels.normals({seed, first_row, rows, dim, dim, stream, step}, pointer<float>(out));
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

// Signals and progress, on the calling thread. A Python exception stays set and ends the call.
bool report(const py::object &progress, int64_t finished) {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) return true;
    if (progress.is_none()) return false;
    try {
        progress(finished);
        return false;
    } catch (py::error_already_set &error) {
        error.restore();
        return true;
    }
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

void denoise_step(const std::string &isa, const std::array<float, 8> &row, Address x, Address x0, Address f,
                  int64_t rows, int64_t dim, uint64_t seed, uint64_t first_row, uint32_t step, int threads) {
    const Kernels &kernels = kernels_of(isa);
    const ldmlr::StepRow values = {row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]};
    const ldmlr::StepParams params = {
        values, pointer<float>(x), pointer<float>(x0), pointer<const float>(f), rows, dim, seed, first_row,
        step};
    const py::gil_scoped_release release;
    ldmlr::denoise_step(kernels, params, threads);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Kernels of ldmlr; use ldmlr.sampler.noise and ldmlr.sampler.cpu.sampler, which check their arguments.";
    m.attr("compiler") = __VERSION__;
    m.attr("padding") = ldmlr::padding;

    py::enum_<Dtype>(m, "Dtype")
        .value("float32", Dtype::float32)
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16)
        .value("int8", Dtype::int8);

    py::class_<Denoiser> denoiser(m, "Denoiser");
    denoiser.def(py::init<>())
        .def_readwrite("dim", &Denoiser::dim)
        .def_readwrite("hidden", &Denoiser::hidden)
        .def_readwrite("layers", &Denoiser::layers)
        .def_readwrite("classes", &Denoiser::classes)
        .def_readwrite("folded", &Denoiser::folded);
    def_address(denoiser, "input", &Denoiser::input);
    def_address(denoiser, "first", &Denoiser::first);
    def_address(denoiser, "w1", &Denoiser::w1);
    def_address(denoiser, "w2", &Denoiser::w2);
    def_address(denoiser, "output", &Denoiser::output);
    def_address(denoiser, "b_in", &Denoiser::b_in);
    def_address(denoiser, "b2", &Denoiser::b2);
    def_address(denoiser, "b_out", &Denoiser::b_out);
    def_address(denoiser, "bias_step", &Denoiser::bias_step);
    def_address(denoiser, "bias_class", &Denoiser::bias_class);
    def_address(denoiser, "quantise", &Denoiser::quantise);

    py::class_<Transform> transform(m, "Transform");
    transform.def(py::init<>()).def_readwrite("floor", &Transform::floor);
    def_address(transform, "mean", &Transform::mean);
    def_address(transform, "diagonal", &Transform::diagonal);
    def_address(transform, "triangle", &Transform::triangle);

    py::class_<SampleParams> params(m, "SampleParams");
    params.def(py::init<>())
        .def(py::init<const SampleParams &>(), py::arg("other"))
        .def_readwrite("net", &SampleParams::net)
        .def_readwrite("transform", &SampleParams::transform)
        .def_readwrite("num_steps", &SampleParams::num_steps)
        .def_readwrite("guidance", &SampleParams::guidance)
        .def_readwrite("seed", &SampleParams::seed)
        .def_readwrite("first_row", &SampleParams::first_row)
        .def_readwrite("rows", &SampleParams::rows)
        .def_readwrite("out_dtype", &SampleParams::out_dtype);
    def_address(params, "steps", &SampleParams::steps);
    def_address(params, "labels", &SampleParams::labels);
    def_address(params, "out", &SampleParams::out);

    m.def("philox4x32", &philox4x32, py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"),
          py::arg("k0"), py::arg("k1"));
    m.def("standard_normal", &standard_normal, py::arg("isa"), py::arg("seed"), py::arg("first_row"),
          py::arg("rows"), py::arg("dim"), py::arg("stream"), py::arg("step"), py::arg("out"));
    m.def("instruction_sets", &instruction_sets);
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
    m.def("denoise_step", &denoise_step, py::arg("isa"), py::arg("row"), py::arg("x"), py::arg("x0"),
          py::arg("f"), py::arg("rows"), py::arg("dim"), py::arg("seed"), py::arg("first_row"),
          py::arg("step"), py::arg("threads"));

    // CUDA: the structs are filled by ldmlr/sampler/cuda/abi.py and passed by address.
    namespace cuda = ldmlr::cuda;
    using Release = py::call_guard<py::gil_scoped_release>;
    m.attr("cuda_architectures") = cuda::architectures();
    m.attr("cuda_sizes") = py::make_tuple(sizeof(cuda::Model), sizeof(cuda::Rows), sizeof(cuda::Call),
                                          sizeof(ldmlr::StepParams), sizeof(ldmlr::NoiseParams));
    m.def(
        "cuda_sample", [](Address call) { cuda::sample(*pointer<const cuda::Call>(call)); }, py::arg("call"),
        Release());
    m.def(
        "cuda_scratch_bytes",
        [](Address model, int64_t slab) {
            return cuda::scratch_bytes(*pointer<const cuda::Model>(model), slab);
        },
        py::arg("model"), py::arg("slab"));
    m.def("cuda_forget", &cuda::forget, py::arg("graph_key"), Release());
    m.def(
        "cuda_denoise_step",
        [](Address params, int device, Address stream) {
            cuda::denoise_step(*pointer<const ldmlr::StepParams>(params), device, pointer<void>(stream));
        },
        py::arg("params"), py::arg("device"), py::arg("stream"), Release());
    m.def(
        "cuda_normals",
        [](Address params, Address out, int device, Address stream) {
            cuda::normals(*pointer<const ldmlr::NoiseParams>(params), pointer<float>(out), device,
                          pointer<void>(stream));
        },
        py::arg("params"), py::arg("out"), py::arg("device"), py::arg("stream"), Release());
}
