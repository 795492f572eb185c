// What the files of the Python module share: a struct as a class, addresses, reports to Python.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <string>
#include <type_traits>

#include "cpu/dispatch.h"
#include "params.h"

namespace ldmlr::bindings {

namespace py = pybind11;
using Address = uintptr_t;
using ReleaseGil = py::call_guard<py::gil_scoped_release>;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

// A struct as a class: `Name()` is all zeros, `Name(field=value, ...)` sets fields by name, as do attributes.
// `address` is where it lies and `size` its bytes, for whoever calls another library with it.
template <class S>
class Struct {
  public:
    Struct(py::module_ &m, const char *name) : class_(m, name) {
        static_assert(std::is_trivially_copyable_v<S>, "plain data");
        class_.def(py::init(&made_of));
        class_.def_property_readonly("address", [](const S &s) { return reinterpret_cast<Address>(&s); });
        class_.attr("size") = sizeof(S);
    }

    template <class T>
    Struct &field(const char *name, T S::*member) {
        if constexpr (std::is_pointer_v<T>) {
            class_.def_property(
                name, [member](const S &s) { return reinterpret_cast<Address>(s.*member); },
                [member](S &s, Address address) { s.*member = reinterpret_cast<T>(address); });
        } else if constexpr (std::is_same_v<T, StepRow>) {
            using Numbers = std::array<float, sizeof(StepRow) / sizeof(float)>;
            class_.def_property(
                name,
                [member](const S &s) {
                    Numbers numbers;
                    std::memcpy(numbers.data(), &(s.*member), sizeof(StepRow));
                    return numbers;
                },
                [member](S &s, const Numbers &numbers) {
                    std::memcpy(&(s.*member), numbers.data(), sizeof(StepRow));
                });
        } else {
            class_.def_readwrite(name, member);
        }
        return *this;
    }

    // `Name(other)` is a copy.
    Struct &copied() {
        class_.def(py::init<const S &>(), py::arg("other"));
        return *this;
    }

  private:
    static S made_of(const py::kwargs &fields) {
        S s{};
        const py::object view = py::cast(&s, py::return_value_policy::reference);
        for (const auto &[name, value] : fields) py::setattr(view, name, value);
        return s;
    }

    py::class_<S> class_;
};

inline const Kernels &kernels_of(const std::string &isa) {
    const Kernels *kernels = find_kernels(isa.c_str());
    if (!kernels) throw py::value_error("instruction set " + isa + " is not available");
    return *kernels;
}

// Signals and progress, on the calling thread. A Python exception stays set and ends the call.
template <class... Numbers>
bool report(const py::object &progress, Numbers... numbers) {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) return true;
    if (progress.is_none()) return false;
    try {
        progress(numbers...);
        return false;
    } catch (py::error_already_set &error) {
        error.restore();
        return true;
    }
}

// Whether a signal ends the call, on the calling thread.
inline bool interrupted() {
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
}

// bindings_train.cpp
void def_train(py::module_ &m);

}  // namespace ldmlr::bindings
