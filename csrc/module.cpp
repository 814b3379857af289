// The Python module: every entry point on one screen. Pointers come as integers from tensors that otgen/ops has
// checked and keeps alive; the GIL is released while a kernel runs and taken only to ask for Ctrl-C.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "cpu/cpu.h"
#include "cpu/geometry/site_tree.h"
#include "cpu/isa/isa.h"
#include "cuda/cuda.h"

namespace py = pybind11;

namespace {

using namespace otgen;

// Between blocks of a kernel: lets Python see its signals, and tells `progress`, if there is one, the fraction done.
class PythonPoll {
 public:
  explicit PythonPoll(py::object progress) : progress_(std::move(progress)) {}
  Poll poll() { return {keep_going, this}; }

 private:
  static bool keep_going(void* self, double done) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    const auto& progress = static_cast<PythonPoll*>(self)->progress_;
    if (!progress.is_none()) progress(done);
    return true;
  }
  py::object progress_;
};

template <class P>
P* pointer(uintptr_t address) {
  return reinterpret_cast<P*>(address);
}

template <class F>
void run(int threads, py::object progress, F&& kernel) {
  PythonPoll poll(std::move(progress));
  const py::gil_scoped_release nogil;
  kernel(Run{threads, poll.poll()});
}

// Where a kernel is to run: threads of the CPU, or a CUDA device (-1 for none) with a stream and work space on it.
using Where = std::tuple<int, int, uintptr_t, uintptr_t>;

#if defined(OTGEN_CUDA) || defined(OTGEN_EMULATE)
constexpr bool kHasKernels = true;
#else
constexpr bool kHasKernels = false;
#endif

bool emulating = false;  // the CUDA kernels run on the host, on tensors of the CPU

bool on_cuda(int device) { return device >= 0 || emulating; }

// Calls one of the two with params(Run). A CUDA kernel that is only started need not ask for Ctrl-C; what waits for its
// result `waits`.
template <class Params, class OnCpu, class OnCuda>
void dispatch(const Where& where, py::object progress, bool waits, Params&& params, OnCpu&& on_cpu, OnCuda&& on_gpu) {
  const auto [threads, device, stream, space] = where;
  const bool ask = waits || !on_cuda(device) || !progress.is_none();
  PythonPoll poll(std::move(progress));
  const py::gil_scoped_release nogil;
  const Run run{threads, ask ? poll.poll() : Poll{}, device, pointer<void>(stream), pointer<void>(space)};
  if (!on_cuda(device))
    on_cpu(params(run));
  else if constexpr (kHasKernels)
    on_gpu(params(run));
  else
    throw std::runtime_error("otgen._ext: this build has kernels for the CPU only");
}

template <class F>
void by_type(const std::string& dtype, F&& f) {
  if (dtype == "float32")
    f(float{});
  else if (dtype == "float64")
    f(double{});
  else
    throw std::invalid_argument("otgen._ext: dtype must be float32 or float64, got " + dtype);
}

template <class T>
int64_t space_of(const std::string& op, int64_t n, int64_t m, int64_t d, int64_t k) {
  if (op == "topk") return topk_space<T>(n, m, d, k);
  if (op == "measure") return measure_space<T>(n, m, d, k > 1);
  if (op == "soft_assign") return soft_assign_space<T>(n, m, d);
  if (op == "soft_assign_grad") return soft_assign_grad_space<T>(n, m, d);
  throw std::invalid_argument("otgen._ext: no work space is known for " + op);
}

Stream stream(const std::string& source, uint64_t seed, int64_t first, uintptr_t directions, int images) {
  return {source == "normal" ? Source::kNormal : Source::kUniform, seed, first, pointer<const uint32_t>(directions),
          images};
}

// An array of a length that only the kernel knows; Python reads it in place by the buffer protocol.
template <class T>
struct Column {
  std::vector<T> values;
};

template <class T>
void define_column(py::module_& module, const char* name) {
  py::class_<Column<T>>(module, name, py::buffer_protocol()).def_buffer([](Column<T>& c) {
    return py::buffer_info(c.values.data(), sizeof(T), py::format_descriptor<T>::format(), 1, {c.values.size()},
                           {sizeof(T)});
  });
}

PowerDomain domain(const std::string& source, uintptr_t corners, int64_t count) {
  return {source == "normal" ? Source::kNormal : Source::kUniform, pointer<const double>(corners), count};
}

}  // namespace

PYBIND11_MODULE(_ext, module) {
  module.doc() = "Compiled kernels of otgen; use them through otgen.ops.";
  module.attr("moment_scale") = kMomentScale;
  module.def("isa", [] { return isa().name; });
  module.def("available_isas", &available_isas);
  module.def("set_isa", [](const std::string& name) { set_isa(name.c_str()); });
  module.def("peak_gflops", &peak_gflops);
#if defined(OTGEN_CUDA)
  module.attr("cuda") = true;
#else
  module.attr("cuda") = false;
#endif
  module.def("emulating", [] { return emulating; });
#if defined(OTGEN_EMULATE)
  module.attr("emulated") = true;
  module.def("emulate", [](bool on) { emulating = on; });
#else
  module.attr("emulated") = false;
#endif
#if defined(OTGEN_CUDA) || defined(OTGEN_EMULATE)
  module.def("cuda_filter", &cuda_filter);
  module.def("cuda_filters", &cuda_filters);
  module.def("set_cuda_filter", &set_cuda_filter);
  module.def("rounding", [](const std::string& filter, uintptr_t a, uintptr_t b, int64_t n, int64_t k,
                            const Where& where, uintptr_t c) {
    dispatch(
        where, py::none(), false,
        [&](const Run& r) {
          return RoundingParams{pointer<uint16_t>(a), pointer<uint16_t>(b), n, k, filter == "wgmma", r,
                                pointer<float>(c)};
        },
        [](const auto&) { throw std::invalid_argument("otgen._ext: rounding is for CUDA tensors"); },
        [](const auto& p) { rounding_cuda(p); });
  });
#endif

  // Bytes of work space for an op on this device.
  module.def("space",
             [](const std::string& op, const std::string& dtype, int device, int64_t n, int64_t m, int64_t d,
                int64_t k) -> int64_t {
               int64_t bytes = 0;
               if constexpr (kHasKernels)
                 if (on_cuda(device)) by_type(dtype, [&](auto t) { bytes = space_of<decltype(t)>(op, n, m, d, k); });
               return bytes;
             });

  module.def("sample", [](const std::string& source, uint64_t seed, int64_t first, uintptr_t directions, int images,
                          int64_t n, int64_t d, const Where& where, uintptr_t x) {
    dispatch(
        where, py::none(), false,
        [&](const Run& r) {
          return SampleParams{stream(source, seed, first, directions, images), n, d, r, pointer<float>(x)};
        },
        [](const auto& p) { sample_cpu(p); }, [](const auto& p) { sample_cuda(p); });
  });

  module.def("assign", [](const std::string& dtype, uintptr_t x, uintptr_t y, uintptr_t h, int64_t n, int64_t m,
                          int64_t d, const Where& where, py::object progress, uintptr_t winner, uintptr_t score) {
    by_type(dtype, [&](auto t) {
      using T = decltype(t);
      dispatch(
          where, progress, false,
          [&](const Run& r) {
            return AssignParams<T>{pointer<T>(x),    pointer<T>(y), pointer<T>(h), n, m, d, r, pointer<int64_t>(winner),
                                   pointer<T>(score)};
          },
          [](const auto& p) { assign_cpu(p); }, [](const auto& p) { assign_cuda(p); });
    });
  });

  module.def("topk",
             [](const std::string& dtype, uintptr_t x, uintptr_t y, uintptr_t h, int64_t n, int64_t m, int64_t d,
                int64_t k, const Where& where, py::object progress, uintptr_t index, uintptr_t score) {
               by_type(dtype, [&](auto t) {
                 using T = decltype(t);
                 dispatch(
                     where, progress, false,
                     [&](const Run& r) {
                       return TopkParams<T>{pointer<T>(x),           pointer<T>(y),    pointer<T>(h), n, m, d, k, r,
                                            pointer<int64_t>(index), pointer<T>(score)};
                     },
                     [](const auto& p) { topk_cpu(p); }, [](const auto& p) { topk_cuda(p); });
               });
             });

  module.def("reassign", [](const std::string& dtype, uintptr_t x, uintptr_t y, uintptr_t h, uintptr_t rise,
                            uintptr_t index, uintptr_t score, uintptr_t norm, double highest_rise, double slack_score,
                            double slack_norm, double slack, int64_t n, int64_t m, int64_t d, int64_t k,
                            const Where& where, uintptr_t winner, uintptr_t new_score) {
    by_type(dtype, [&](auto t) {
      using T = decltype(t);
      run(std::get<0>(where), py::none(), [&](const Run& r) {
        reassign_cpu(ReassignParams<T>{pointer<T>(x), pointer<T>(y), pointer<T>(h), pointer<double>(rise),
                                       pointer<int64_t>(index), pointer<T>(score), pointer<double>(norm), highest_rise,
                                       slack_score, slack_norm, slack, n, m, d, k, r, pointer<int64_t>(winner),
                                       pointer<T>(new_score)});
      });
    });
  });

  module.def("measure",
             [](const std::string& dtype, uintptr_t y, uintptr_t h, const std::string& source, uint64_t seed,
                int64_t first, uintptr_t directions, int images, int64_t n, int64_t m, int64_t d, const Where& where,
                py::object progress, uintptr_t counts, uintptr_t pairs, uintptr_t gaps, uintptr_t moments) {
               double mean_u = 0;
               by_type(dtype, [&](auto t) {
                 using T = decltype(t);
                 dispatch(
                     where, progress, true,
                     [&](const Run& r) {
                       return MeasureParams<T>{pointer<T>(y),
                                               pointer<T>(h),
                                               stream(source, seed, first, directions, images),
                                               n,
                                               m,
                                               d,
                                               r,
                                               pointer<int64_t>(counts),
                                               &mean_u,
                                               pointer<int32_t>(pairs),
                                               pointer<T>(gaps),
                                               pointer<int64_t>(moments)};
                     },
                     [](const auto& p) { measure_cpu(p); }, [](const auto& p) { measure_cuda(p); });
               });
               return mean_u;
             });

  module.def("soft_assign", [](const std::string& dtype, uintptr_t x, uintptr_t y, uintptr_t h, int64_t n, int64_t m,
                               int64_t d, double eps, const Where& where, uintptr_t value, uintptr_t columns) {
    by_type(dtype, [&](auto t) {
      using T = decltype(t);
      dispatch(
          where, py::none(), false,
          [&](const Run& r) {
            return SoftAssignParams<T>{pointer<T>(x),     pointer<T>(y),      pointer<T>(h), n, m, d, eps, r,
                                       pointer<T>(value), pointer<T>(columns)};
          },
          [](const auto& p) { soft_assign_cpu(p); }, [](const auto& p) { soft_assign_cuda(p); });
    });
  });

  module.def("soft_assign_grad",
             [](const std::string& dtype, uintptr_t x, uintptr_t y, uintptr_t h, uintptr_t grad_value,
                uintptr_t grad_columns, int64_t n, int64_t m, int64_t d, double eps, const Where& where,
                uintptr_t grad_x, uintptr_t grad_y, uintptr_t grad_h) {
               by_type(dtype, [&](auto t) {
                 using T = decltype(t);
                 dispatch(
                     where, py::none(), false,
                     [&](const Run& r) {
                       return SoftAssignGradParams<T>{pointer<T>(x),
                                                      pointer<T>(y),
                                                      pointer<T>(h),
                                                      pointer<T>(grad_value),
                                                      pointer<T>(grad_columns),
                                                      n,
                                                      m,
                                                      d,
                                                      eps,
                                                      r,
                                                      pointer<T>(grad_x),
                                                      pointer<T>(grad_y),
                                                      pointer<T>(grad_h)};
                     },
                     [](const auto& p) { soft_assign_grad_cpu(p); }, [](const auto& p) { soft_assign_grad_cuda(p); });
               });
             });

  module.def("laplacian", [](uintptr_t pairs, uintptr_t gaps, uintptr_t bandwidth, int64_t p, int64_t m, double scale,
                             bool local, int threads, uintptr_t edges, uintptr_t weights) {
    int64_t count = 0;
    const py::gil_scoped_release nogil;
    laplacian_cpu({pointer<int32_t>(pairs), pointer<float>(gaps), pointer<float>(bandwidth), p, m, scale, local,
                   threads, pointer<int64_t>(edges), pointer<double>(weights), &count});
    return count;
  });

  define_column<int64_t>(module, "IntColumn");
  define_column<double>(module, "DoubleColumn");
  py::register_exception<SmallCell>(module, "SmallCell");
  py::class_<SiteTree>(module, "SiteTree")
      .def(py::init([](uintptr_t y, int64_t m, int d, int threads) {
        const py::gil_scoped_release nogil;
        return std::make_unique<SiteTree>(pointer<const double>(y), m, d, threads);
      }))
      .def("order",
           [](const SiteTree& tree, uintptr_t numbers) {
             for (int64_t p = 0; p < tree.size(); ++p) pointer<int64_t>(numbers)[p] = tree.number(p);
           })
      .def("set_heights",
           [](SiteTree& tree, uintptr_t h, int threads) {
             const py::gil_scoped_release nogil;
             tree.set_heights(pointer<const double>(h), threads);
           })
      .def("diagram",
           [](const SiteTree& tree, const std::string& source, uintptr_t corners, int64_t count, int threads,
              py::object progress, uintptr_t near, int64_t near_count, uintptr_t least, uintptr_t measures,
              uintptr_t first, uintptr_t second) {
             Column<int64_t> pairs;
             Column<double> facets;
             run(threads, std::move(progress), [&](const Run& r) {
               power_diagram_cpu({tree, domain(source, corners, count), r, pointer<const int64_t>(near), near_count,
                                  pointer<const double>(least), pointer<double>(measures), pointer<double>(first),
                                  pointer<double>(second), pairs.values, facets.values});
             });
             return std::make_pair(std::move(pairs), std::move(facets));
           })
      .def("cells", [](const SiteTree& tree, const std::string& source, uintptr_t corners, int64_t count,
                       uintptr_t which, int64_t cells) {
        Column<int64_t> sizes, labels, loop_sizes, loops;
        Column<double> points;
        {
          const py::gil_scoped_release nogil;
          power_cells_cpu({tree, domain(source, corners, count), pointer<const int64_t>(which), cells, sizes.values,
                           points.values, labels.values, loop_sizes.values, loops.values});
        }
        return std::make_tuple(std::move(sizes), std::move(points), std::move(labels), std::move(loop_sizes),
                               std::move(loops));
      });
}
