// The Python module ldmlr._native, and the only file that knows pybind11.
//
// Arguments are integers and addresses of C-ordered arrays that Python has checked
// (ldmlr/noise.py); here they become plain structs, the GIL is released and the kernel runs.
#include <pybind11/pybind11.h>

#include <array>

#include "cpu/noise.h"
#include "philox.h"

namespace py = pybind11;
using Address = uintptr_t;

namespace {

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

py::tuple philox4x32(const std::array<uint32_t, 4> &counter, const std::array<uint32_t, 2> &key) {
    const ldmlr::Words out =
        ldmlr::philox4x32({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
    return py::make_tuple(out.w[0], out.w[1], out.w[2], out.w[3]);
}

void standard_normal(uint64_t seed, uint64_t first_row, int64_t rows, int64_t dim, uint32_t stream,
                     uint32_t step, Address out) {
    const ldmlr::NoiseParams params{seed, first_row, rows, dim, stream, step};
    const py::gil_scoped_release release;
    ldmlr::standard_normal(params, pointer<float>(out));
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Kernels of ldmlr; use ldmlr.noise and ldmlr.native, which check their arguments.";
    m.def(
        "philox4x32",
        [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
            return philox4x32({c0, c1, c2, c3}, {k0, k1});
        },
        py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("k0"), py::arg("k1"));
    m.def("standard_normal", &standard_normal, py::arg("seed"), py::arg("first_row"), py::arg("rows"),
          py::arg("dim"), py::arg("stream"), py::arg("step"), py::arg("out"));
    m.attr("compiler") = __VERSION__;
}
