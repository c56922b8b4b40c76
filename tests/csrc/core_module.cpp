// The core without torch, for the unit tests and the fuzzer: every function of every instruction set on numpy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/kernels.h"

namespace py = pybind11;
using pare::InstructionSet;
using pare::Type;

namespace {

const InstructionSet& find(const std::string& name) {
  int count;
  const InstructionSet* const* sets = pare::instruction_sets(&count);
  for (int i = 0; i < count; ++i)
    if (name == sets[i]->kernels.name) return *sets[i];
  throw std::invalid_argument("no instruction set " + name);
}

std::vector<std::string> names() {
  int count;
  const InstructionSet* const* sets = pare::instruction_sets(&count);
  std::vector<std::string> all;
  for (int i = 0; i < count; ++i) all.emplace_back(sets[i]->kernels.name);
  return all;
}

bool is_double(const py::array& a) { return a.dtype().is(py::dtype::of<double>()); }

using Shape = std::vector<py::ssize_t>;

// Filled with NaN (all bits set), so that what a kernel leaves out shows.
py::array like(const py::array& a, Shape shape) {
  py::array result(a.dtype(), std::move(shape));
  std::memset(result.mutable_data(), 0xff, static_cast<std::size_t>(result.nbytes()));
  return result;
}

void expect(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// float32 -> f32, float64 -> f64, uint16 -> bf16 or f16 by name.
Type type_of(const py::array& a, const std::string& half) {
  if (a.dtype().is(py::dtype::of<float>())) return Type::f32;
  if (a.dtype().is(py::dtype::of<double>())) return Type::f64;
  expect(a.itemsize() == 2, "tokens must be float32, float64 or the bits of a half type");
  return half == "bf16" ? Type::bf16 : Type::f16;
}

pare::Tokens tokens_of(const py::array& a) {
  expect(a.ndim() == 3, "tokens must have three dimensions");
  const py::ssize_t size = a.itemsize();
  return {const_cast<void*>(a.data()), a.shape(1), a.strides(0) / size, a.strides(1) / size, a.strides(2) / size};
}

py::array philox(const std::string& set, std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::uint32_t first,
                 int count) {
  py::array_t<std::uint32_t> words(count);
  find(set).parts.philox(seed, stream, row, first, count, words.mutable_data());
  return words;
}

py::array gumbel(const std::string& set, bool as_double, std::uint64_t seed, std::uint32_t stream, std::uint64_t row,
                 py::ssize_t patches) {
  py::array noise(as_double ? py::dtype::of<double>() : py::dtype::of<float>(), Shape{patches});
  find(set).parts.gumbel(as_double, seed, stream, row, patches, noise.mutable_data());
  return noise;
}

template <class Function>
py::array apply(Function function, const py::array& x) {
  py::array result = like(x, {x.size()});
  function(is_double(x), x.data(), x.size(), result.mutable_data());
  return result;
}

py::tuple convert(const std::string& set, const py::array& x, const std::string& half) {
  const Type type = type_of(x, half);
  py::array acc(type == Type::f64 ? py::dtype::of<double>() : py::dtype::of<float>(), Shape{x.size()});
  py::array back = like(x, {x.size()});
  find(set).parts.convert(type, x.data(), x.size(), acc.mutable_data(), back.mutable_data());
  return py::make_tuple(acc, back);
}

py::tuple split(const std::string& set, const py::array& scores, std::int64_t n, bool negate) {
  expect(0 <= n && n <= scores.size(), "n must be between 0 and the number of scores");
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(n + 1)), rest(static_cast<std::size_t>(scores.size() - n + 1));
  find(set).parts.split(is_double(scores), scores.data(), scores.size(), n, negate, chosen.data(), rest.data());
  chosen.pop_back();
  rest.pop_back();
  return py::make_tuple(chosen, rest);
}

py::array relax(const std::string& set, const py::array& scores, std::int64_t chosen, double tau, std::int64_t exact_steps,
                bool negate, int route, const py::object& upstream) {
  expect(scores.ndim() == 2, "scores must have shape (rows, patches)");
  expect(0 <= chosen && chosen <= scores.shape(1), "chosen must be between 0 and the number of patches");
  py::array result = like(scores, {scores.shape(0), scores.shape(1)});
  py::array c = upstream.is_none() ? scores : py::cast<py::array>(upstream);
  expect(c.size() == scores.size() && c.itemsize() == scores.itemsize(), "upstream must be like scores");
  const pare::Relax arguments{is_double(scores), scores.shape(1), chosen, tau, exact_steps, negate, route,
                              scores.data(), upstream.is_none() ? nullptr : c.data(), result.mutable_data()};
  find(set).kernels.relax(arguments, 0, scores.shape(0));
  return result;
}

py::array gate_scores(const std::string& set, const py::array& tokens, const std::string& half, const py::array& weight,
                      double bias) {
  expect(weight.size() == tokens.shape(2), "weight must have one value per feature");
  py::array scores = like(weight, {tokens.shape(0), tokens.shape(1)});
  const pare::GateScores arguments{type_of(tokens, half), tokens_of(tokens),     tokens.shape(2),
                                   weight.data(),         bias, scores.mutable_data()};
  find(set).kernels.gate_scores(arguments, 0, tokens.shape(0));
  return scores;
}

pare::Noise noise_of(const py::object& noise, const py::object& seed, std::uint32_t stream) {
  pare::Noise result{nullptr, !seed.is_none(), 0, stream};
  if (!noise.is_none()) result.given = py::cast<py::array>(noise).data();
  if (!seed.is_none()) result.seed = py::cast<std::uint64_t>(seed);
  return result;
}

// Runs patch_replace (mixed returned) or, with `in_place`, exchanges the rows of `target` and `source`.
py::dict patch_replace(const std::string& set, py::array target, py::array source, const std::string& half,
                       const py::array& weight, double bias, const py::object& seed, const py::object& noise_target,
                       const py::object& noise_source, std::int64_t k, double noise_scale, int selection, bool highest,
                       bool by_score, bool in_place, bool streaming) {
  const py::ssize_t batch = target.shape(0), targets = target.shape(1), sources = source.shape(1);
  expect(0 <= k && k <= std::min(targets, sources), "k must be between 0 and the number of patches");
  py::array mixed = like(target, {in_place ? 0 : batch, targets, target.shape(2)});
  py::array_t<std::int64_t> target_index({batch, static_cast<py::ssize_t>(k)});
  py::array_t<std::int64_t> source_index({batch, static_cast<py::ssize_t>(k)});
  py::array gate_target = like(weight, {batch, targets}), gate_source = like(weight, {batch, sources});
  py::array noisy_target = like(weight, {batch, targets}), noisy_source = like(weight, {batch, sources});
  pare::PatchReplace p{};
  p.type = type_of(target, half);
  p.features = target.shape(2);
  p.k = k;
  p.target = tokens_of(target);
  p.source = tokens_of(source);
  p.mixed = in_place ? nullptr : mixed.mutable_data();
  p.weight = weight.data();
  p.bias = bias;
  p.noise_target = noise_of(noise_target, seed, 0);
  p.noise_source = noise_of(noise_source, seed, 1);
  p.noise_scale = noise_scale;
  p.selection = static_cast<pare::Selection>(selection);
  p.highest = highest;
  p.by_score = by_score;
  p.streaming = streaming;
  p.target_index = target_index.mutable_data();
  p.source_index = source_index.mutable_data();
  p.gate_target = gate_target.mutable_data();
  p.gate_source = gate_source.mutable_data();
  p.noisy_target = noisy_target.mutable_data();
  p.noisy_source = noisy_source.mutable_data();
  find(set).kernels.patch_replace(p, 0, batch);
  return py::dict(py::arg("mixed") = mixed, py::arg("target_index") = target_index,
                  py::arg("source_index") = source_index, py::arg("gate_target") = gate_target,
                  py::arg("gate_source") = gate_source, py::arg("noisy_target") = noisy_target,
                  py::arg("noisy_source") = noisy_source);
}

py::tuple patch_replace_backward(const std::string& set, const py::array& grad, const py::object& grad_source,
                                 const py::array& target, const py::array& source, const std::string& half,
                                 const py::array& weight, const py::dict& forward, double tau, std::int64_t exact_steps,
                                 bool highest, bool relax, bool need_target, bool need_source, bool need_gate,
                                 bool streaming) {
  const auto array = [&](const char* name) { return py::cast<py::array>(forward[name]); };
  const py::array target_index = array("target_index"), source_index = array("source_index");
  const py::array gate_target = array("gate_target"), gate_source = array("gate_source");
  const py::array noisy_target = array("noisy_target"), noisy_source = array("noisy_source");
  py::array dtarget = like(target, {target.shape(0), need_target ? target.shape(1) : 0, target.shape(2)});
  py::array dsource = like(source, {source.shape(0), need_source ? source.shape(1) : 0, source.shape(2)});
  std::vector<double> dweight(static_cast<std::size_t>(target.shape(2)));
  double dbias = 0;
  pare::PatchReplaceBackward p{};
  p.type = type_of(target, half);
  p.features = target.shape(2);
  p.k = target_index.shape(1);
  p.grad = tokens_of(grad);
  p.swapped = !grad_source.is_none();
  if (p.swapped) p.grad_source = tokens_of(py::cast<py::array>(grad_source));
  p.target = tokens_of(target);
  p.source = tokens_of(source);
  p.weight = weight.data();
  p.gate_target = gate_target.data();
  p.gate_source = gate_source.data();
  p.noisy_target = noisy_target.data();
  p.noisy_source = noisy_source.data();
  p.target_index = static_cast<const std::int64_t*>(target_index.data());
  p.source_index = static_cast<const std::int64_t*>(source_index.data());
  p.tau = tau;
  p.exact_steps = exact_steps;
  p.highest = highest;
  p.relax = relax;
  p.need_gate = need_gate;
  p.streaming = streaming;
  p.dtarget = need_target ? dtarget.mutable_data() : nullptr;
  p.dsource = need_source ? dsource.mutable_data() : nullptr;
  find(set).kernels.patch_replace_backward(p, 0, target.shape(0), dweight.data(), &dbias);
  return py::make_tuple(dtarget, dsource, dweight, dbias);
}

}  // namespace

PYBIND11_MODULE(PARE_TEST_MODULE, m) {
  m.def("instruction_sets", &names);
  m.def("philox", &philox);
  m.def("gumbel", &gumbel);
  m.def("exp", [](const std::string& set, const py::array& x) { return apply(find(set).parts.exp, x); });
  m.def("log1p", [](const std::string& set, const py::array& x) { return apply(find(set).parts.log1p, x); });
  m.def("convert", &convert);
  m.def("split", &split);
  m.def("relax", &relax, py::arg("set"), py::arg("scores"), py::arg("chosen"), py::arg("tau"), py::arg("exact_steps"),
        py::arg("negate") = false, py::arg("route") = 0, py::arg("upstream") = py::none());
  m.def("gate_scores", &gate_scores);
  m.def("patch_replace", &patch_replace, py::arg("set"), py::arg("target"), py::arg("source"), py::arg("half"),
        py::arg("weight"), py::arg("bias"), py::arg("seed"), py::arg("noise_target"), py::arg("noise_source"),
        py::arg("k"), py::arg("noise_scale"), py::arg("selection"), py::arg("highest"), py::arg("by_score"),
        py::arg("in_place"), py::arg("streaming"));
  m.def("patch_replace_backward", &patch_replace_backward, py::arg("set"), py::arg("grad"), py::arg("grad_source"),
        py::arg("target"), py::arg("source"), py::arg("half"), py::arg("weight"), py::arg("forward"), py::arg("tau"),
        py::arg("exact_steps"), py::arg("highest"), py::arg("relax"), py::arg("need_target"), py::arg("need_source"),
        py::arg("need_gate"), py::arg("streaming"));
}
