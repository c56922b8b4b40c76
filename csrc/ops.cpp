// The operators of the namespace pare_kernels on the CPU, on LibTorch's stable ABI.
//
// Schemas with the shapes of everything, fake kernels and autograd live in pare_kernels/_library.py. Here tensors become pointers and strides, the batch is
// cut into tasks, and the core does the work. How a batch is cut depends on its shape alone, never on the number of threads,
// and partial sums are added in a fixed order: a run repeats bit for bit on any number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "core/kernels.h"

#ifndef PARE_NAMESPACE  // builds for the kernel hub have their own
#define PARE_NAMESPACE pare_kernels
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Asks for huge pages under a large new tensor. The allocator often maps such memory afresh on every call, and the page faults
// of small pages then cost more than the kernel. A hint: systems that do not know it lose nothing.
void prefer_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (address + page - 1) / page * page;
  const std::uintptr_t last = (address + static_cast<std::uintptr_t>(bytes)) / page * page;
  if (last >= first + page) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Tensor empty(std::initializer_list<std::int64_t> sizes, ScalarType dtype) {
  std::int64_t strides[3];
  std::int64_t stride = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(1, sizes.begin()[i]);
  }
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<std::int64_t>(sizes.size()), sizes.begin(), strides,
      torch::stable::detail::to<std::int32_t>(torch::stable::detail::from(dtype)), aoti_torch_device_type_cpu(), 0,
      &handle));
  Tensor tensor(handle);
  const std::int64_t bytes = tensor.numel() * static_cast<std::int64_t>(tensor.element_size());
  if (bytes >= std::int64_t{4} << 20) prefer_huge_pages(tensor.data_ptr(), bytes);
  return tensor;
}

// A gradient, of nothing where nobody needs it.
Tensor empty_if(bool needed, std::initializer_list<std::int64_t> sizes, ScalarType dtype) {
  return needed ? empty(sizes, dtype) : empty({0}, dtype);
}

// That of the gate's weight, (D,) or (1, D).
Tensor empty_like_gate(bool needed, const Tensor& weight, ScalarType dtype) {
  return weight.dim() == 2 ? empty_if(needed, {1, weight.numel()}, dtype) : empty_if(needed, {weight.numel()}, dtype);
}

pare::Type type_of(const Tensor& tokens, const char* name) {
  switch (tokens.scalar_type()) {
    case ScalarType::Float: return pare::Type::f32;
    case ScalarType::Double: return pare::Type::f64;
    case ScalarType::BFloat16: return pare::Type::bf16;
    case ScalarType::Half: return pare::Type::f16;
    default: STD_TORCH_CHECK(false, name, " must be float32, bfloat16, float16 or float64");
  }
}

ScalarType acc_of(pare::Type type) { return type == pare::Type::f64 ? ScalarType::Double : ScalarType::Float; }

// Rows of tokens as the core reads them. A copy is made only where the features of a row are not side by side.
class TokenInput {
 public:
  TokenInput(const Tensor& tensor, const char* name, bool any_strides = false) : tensor_(tensor) {
    STD_TORCH_CHECK(tensor.dim() == 3, name, " must have shape (batch, patches, features)");
    if (tensor.stride(2) != 1 && tensor.size(2) > 1 && !any_strides) tensor_ = torch::stable::contiguous(tensor);
    const auto sizes = tensor_.sizes();
    const auto strides = tensor_.strides();
    batch = sizes[0];
    features = sizes[2];
    view = {tensor_.data_ptr(), sizes[1], strides[0], strides[1], features > 1 ? strides[2] : 1};
  }

  void check_like(const TokenInput& other, const char* name) const {
    STD_TORCH_CHECK(batch == other.batch && features == other.features, name, " must have the batch and features of target");
    STD_TORCH_CHECK(tensor_.scalar_type() == other.tensor_.scalar_type(), name, " must have the dtype of target");
  }

  pare::Tokens view;
  std::int64_t batch, features;

 private:
  Tensor tensor_;
};

// An operand that the core reads as contiguous numbers of one type.
class Numbers {
 public:
  Numbers(const Tensor& tensor, ScalarType dtype, std::int64_t count, const char* name)
      : tensor_(tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor)) {
    STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, " has the wrong dtype");
    STD_TORCH_CHECK(tensor.numel() == count, name, " must have ", count, " elements, got ", tensor.numel());
  }
  void* data() const { return tensor_.data_ptr(); }

 private:
  Tensor tensor_;
};

double read(const void* data, ScalarType dtype, std::int64_t at) {
  switch (dtype) {
    case ScalarType::Float: return static_cast<const float*>(data)[at];
    case ScalarType::Double: return static_cast<const double*>(data)[at];
    case ScalarType::BFloat16: return pare::to_acc(static_cast<const pare::bf16*>(data)[at]);
    case ScalarType::Half: return pare::to_acc(static_cast<const pare::f16*>(data)[at]);
    default: STD_TORCH_CHECK(false, "the gate must be float32, bfloat16, float16 or float64");
  }
}

// Gate weights in the accumulation type, whatever their own type and strides.
class Gate {
 public:
  Gate(const Tensor& weight, const std::optional<Tensor>& bias, pare::Type type, std::int64_t features) {
    STD_TORCH_CHECK(weight.numel() == features, "gate_weight must have ", features, " elements, got ", weight.numel());
    const ScalarType dtype = weight.scalar_type();
    contiguous_ = weight.is_contiguous() ? weight : torch::stable::contiguous(weight);
    const void* data = contiguous_->data_ptr();
    weight_ = data;
    if (dtype != acc_of(type)) {
      if (type == pare::Type::f64) {
        convert(doubles_, data, dtype, features);
      } else {
        convert(floats_, data, dtype, features);
      }
    }
    if (bias) {
      STD_TORCH_CHECK(bias->numel() == 1, "gate_bias must have one element");
      bias_ = read(bias->data_ptr(), bias->scalar_type(), 0);
    }
  }
  const void* weight() const { return weight_; }
  double bias() const { return bias_; }

 private:
  template <class T>
  void convert(std::vector<T>& to, const void* data, ScalarType dtype, std::int64_t features) {
    to.resize(static_cast<std::size_t>(features));
    for (std::int64_t d = 0; d < features; ++d) to[static_cast<std::size_t>(d)] = static_cast<T>(read(data, dtype, d));
    weight_ = to.data();
  }

  std::optional<Tensor> contiguous_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
  const void* weight_;
  double bias_ = 0;
};

// Given noise or a seed, kept alive for the call.
class NoiseInput {
 public:
  NoiseInput(const std::optional<Tensor>& given, const std::optional<Tensor>& seed, std::int64_t stream,
             std::int64_t first_row, ScalarType dtype, std::int64_t count, const char* name)
      : noise{nullptr, false, 0, static_cast<std::uint32_t>(stream), static_cast<std::uint64_t>(first_row)} {
    if (seed) {
      STD_TORCH_CHECK(seed->scalar_type() == ScalarType::Long && seed->numel() == 1, "seed must be one int64");
      noise.seeded = true;
      noise.seed = static_cast<std::uint64_t>(*static_cast<const std::int64_t*>(seed->data_ptr()));
    } else if (given) {
      numbers_.emplace(*given, dtype, count, name);
      noise.given = numbers_->data();
    }
  }
  pare::Noise noise;

 private:
  std::optional<Numbers> numbers_;
};

// Tensors of this size are written past the caches: they would only evict what is read next. A fixed number, since virtual
// machines report the cache of the whole socket.
bool beyond_cache(std::int64_t bytes) { return bytes > std::int64_t{6} << 20; }

std::int64_t bytes_of(const TokenInput& tokens, pare::Type type) {
  const std::int64_t size = type == pare::Type::f64 ? 8 : type == pare::Type::f32 ? 4 : 2;
  return tokens.batch * tokens.view.patches * tokens.features * size;
}

// body(first sample, last sample) for a whole batch, `per_task` samples at once; `work`: about how many numbers one has.
//
// Throws what a body throws, the first if several do: by itself an exception would not find its way out of another thread.
template <class Body>
void for_samples(std::int64_t batch, std::int64_t per_task, std::int64_t work, const Body& body) {
  const std::int64_t tasks = (batch + per_task - 1) / per_task;
  std::exception_ptr error;
  std::mutex guard;
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    try {
      for (std::int64_t task = begin; task < end; ++task)
        body(task * per_task, std::min(batch, (task + 1) * per_task));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!error) error = std::current_exception();
    }
  };
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, work * per_task));
  if (tasks <= grain) {
    run(0, tasks);
  } else {
    torch::stable::parallel_for(0, tasks, grain, run);
  }
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    STD_TORCH_CHECK(false, "out of memory: no room for the working space of ", per_task, " sample(s) of the batch");
  }
}

// The same with sums over the batch: body(first, last, dweight, dbias) adds to its own copy; at most `most_partials` copies,
// each of consecutive tasks, added up in order. Writes to dweight and dbias of type `dtype`.
template <class Body>
void for_samples_with_sums(std::int64_t batch, std::int64_t per_task, std::int64_t work, std::int64_t features,
                         const Tensor* dweight, const Tensor* dbias, ScalarType dtype, const Body& body) {
  constexpr std::int64_t most_partials = 128;
  if (!dweight)
    return for_samples(batch, per_task, work, [&](std::int64_t a, std::int64_t b) { body(a, b, nullptr, nullptr); });
  const std::int64_t tasks = (batch + per_task - 1) / per_task;
  const std::int64_t tasks_per_partial = std::max<std::int64_t>(1, (tasks + most_partials - 1) / most_partials);
  const std::int64_t partials = (tasks + tasks_per_partial - 1) / tasks_per_partial;
  const std::int64_t width = features + 1;
  std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(1, partials) * width), 0.0);
  for_samples(partials, 1, work * per_task * tasks_per_partial, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t partial = first; partial < last; ++partial) {
      double* own = sums.data() + partial * width;
      const std::int64_t stop = std::min(tasks, (partial + 1) * tasks_per_partial);
      for (std::int64_t task = partial * tasks_per_partial; task < stop; ++task)
        body(task * per_task, std::min(batch, (task + 1) * per_task), own, own + features);
    }
  });
  for (std::int64_t partial = 1; partial < partials; ++partial)
    for (std::int64_t d = 0; d < width; ++d)
      sums[static_cast<std::size_t>(d)] += sums[static_cast<std::size_t>(partial * width + d)];
  const auto write = [&](auto* weight, auto* bias) {
    using T = std::remove_reference_t<decltype(*weight)>;
    for (std::int64_t d = 0; d < features; ++d) weight[d] = static_cast<T>(sums[static_cast<std::size_t>(d)]);
    *bias = static_cast<T>(sums[static_cast<std::size_t>(features)]);
  };
  if (dtype == ScalarType::Double) {
    write(static_cast<double*>(dweight->data_ptr()), static_cast<double*>(dbias->data_ptr()));
  } else {
    write(static_cast<float*>(dweight->data_ptr()), static_cast<float*>(dbias->data_ptr()));
  }
}

// ---- gate_scores ------------------------------------------------------------------------------------------------------

Tensor gate_scores(Tensor tokens, Tensor weight, std::optional<Tensor> bias) {
  const pare::Type type = type_of(tokens, "tokens");
  const TokenInput input(tokens, "tokens");
  const Gate gate(weight, bias, type, input.features);
  const Tensor scores = empty({input.batch, input.view.patches}, acc_of(type));
  const pare::GateScores p{type, input.view, input.features, gate.weight(), gate.bias(), scores.data_ptr()};
  for_samples(input.batch, 1, input.view.patches * input.features,
            [&](std::int64_t first, std::int64_t last) { pare::kernels().gate_scores(p, first, last); });
  return scores;
}

std::tuple<Tensor, Tensor, Tensor> gate_scores_backward(Tensor grad, Tensor scores, Tensor tokens, Tensor weight,
                                                        bool need_tokens, bool need_weight) {
  const pare::Type type = type_of(tokens, "tokens");
  const ScalarType acc = acc_of(type);
  const TokenInput input(tokens, "tokens");
  const std::int64_t patches = input.view.patches;
  const Gate gate(weight, std::nullopt, type, input.features);
  const Numbers g(grad, acc, input.batch * patches, "grad"), s(scores, acc, input.batch * patches, "scores");
  const Tensor dtokens = empty_if(need_tokens, {input.batch, patches, input.features}, tokens.scalar_type());
  const Tensor dweight = empty_like_gate(need_weight, weight, acc), dbias = empty_if(need_weight, {1}, acc);
  const pare::GateScoresBackward p{.type = type,
                                   .tokens = input.view,
                                   .features = input.features,
                                   .grad = g.data(),
                                   .scores = s.data(),
                                   .weight = gate.weight(),
                                   .dtokens = need_tokens ? dtokens.data_ptr() : nullptr,
                                   .need_weight = need_weight,
                                   .streaming = beyond_cache(bytes_of(input, type))};
  for_samples_with_sums(input.batch, 1, patches * input.features, input.features, need_weight ? &dweight : nullptr, &dbias, acc,
                      [&](std::int64_t first, std::int64_t last, double* dw, double* db) {
                        pare::kernels().gate_scores_backward(p, first, last, dw, db);
                      });
  return {dtokens, dweight, dbias};
}

// ---- gumbel_topk ------------------------------------------------------------------------------------------------------

ScalarType check_scores(const Tensor& scores, const char* name) {
  STD_TORCH_CHECK(scores.dim() == 2, name, " must have shape (batch, patches)");
  const ScalarType dtype = scores.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, name, " must be float32 or float64");
  return dtype;
}

void check_k(std::int64_t k, std::int64_t limit) {
  STD_TORCH_CHECK(k >= 0 && k <= limit, "k must be between 0 and ", limit, ", got ", k);
}

// About how many numbers the relaxation of one row goes through.
std::int64_t relaxation_work(std::int64_t patches, std::int64_t chosen, std::int64_t exact_steps) {
  const std::int64_t steps = exact_steps < 0 ? chosen : std::min(exact_steps, chosen);
  return patches * (4 + std::min<std::int64_t>(steps, 256));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gumbel_topk(Tensor scores, std::optional<Tensor> noise,
                                                       std::optional<Tensor> seed, std::int64_t stream, std::int64_t k,
                                                       double tau, double noise_scale, std::int64_t exact_steps,
                                                       std::int64_t first_row) {
  const ScalarType dtype = check_scores(scores, "scores");
  const std::int64_t batch = scores.size(0), patches = scores.size(1);
  check_k(k, patches);
  const Numbers s(scores, dtype, batch * patches, "scores");
  const NoiseInput n(noise, seed, stream, first_row, dtype, batch * patches, "noise");
  const Tensor mask = empty({batch, patches}, dtype), relaxed = empty({batch, patches}, dtype);
  const Tensor noisy = empty({batch, patches}, dtype), indices = empty({batch, k}, ScalarType::Long);
  const bool is_double = dtype == ScalarType::Double;
  const pare::GumbelTopK p{.is_double = is_double,
                           .patches = patches,
                           .k = k,
                           .tau = tau,
                           .noise_scale = noise_scale,
                           .exact_steps = exact_steps,
                           .scores = s.data(),
                           .noise = n.noise,
                           .indices = static_cast<std::int64_t*>(indices.data_ptr()),
                           .mask = mask.data_ptr(),
                           .relaxed = relaxed.data_ptr(),
                           .noisy = noisy.data_ptr()};
  const pare::Kernels& kernels = pare::kernels();
  for_samples(batch, kernels.samples_per_task(patches, is_double), relaxation_work(patches, k, exact_steps),
            [&](std::int64_t first, std::int64_t last) { kernels.gumbel_topk(p, first, last); });
  return {mask, relaxed, noisy, indices};
}

Tensor gumbel_topk_backward(Tensor grad, Tensor noisy, std::int64_t k, double tau, std::int64_t exact_steps) {
  const ScalarType dtype = check_scores(noisy, "noisy");
  const std::int64_t batch = noisy.size(0), patches = noisy.size(1);
  check_k(k, patches);
  const Numbers s(noisy, dtype, batch * patches, "noisy"), c(grad, dtype, batch * patches, "grad");
  const Tensor ds = empty({batch, patches}, dtype);
  const bool is_double = dtype == ScalarType::Double;
  const pare::Relax p{.is_double = is_double,
                      .patches = patches,
                      .chosen = k,
                      .tau = tau,
                      .exact_steps = exact_steps,
                      .scores = s.data(),
                      .upstream = c.data(),
                      .result = ds.data_ptr()};
  const pare::Kernels& kernels = pare::kernels();
  for_samples(batch, kernels.samples_per_task(patches, is_double), relaxation_work(patches, k, exact_steps),
            [&](std::int64_t first, std::int64_t last) { kernels.relax(p, first, last); });
  return ds;
}

// ---- patch_replace, patch_swap_ ---------------------------------------------------------------------------------------

// The scores behind a choice are one flat tensor: noisy ones of target and source, then the gates, where tokens are scored.
std::int64_t scores_numel(std::int64_t batch, std::int64_t targets, std::int64_t sources, bool gated) {
  return batch * (targets + sources) * (gated ? 2 : 1);
}

template <class Parameters>
void point_to_scores(Parameters& p, void* flat, ScalarType acc, std::int64_t batch, std::int64_t targets, std::int64_t sources,
                     bool gated) {
  const std::int64_t size = acc == ScalarType::Double ? 8 : 4;
  auto* noisy = static_cast<char*>(flat);
  p.noisy_target = noisy;
  p.noisy_source = noisy + batch * targets * size;
  if (!gated) return;
  char* gates = noisy + batch * (targets + sources) * size;
  p.gate_target = gates;
  p.gate_source = gates + batch * targets * size;
}

void check_writable(const Tensor& tensor, const char* name) {
  for (std::int64_t d = 0; d < tensor.dim(); ++d)
    STD_TORCH_CHECK(tensor.stride(d) != 0 || tensor.size(d) <= 1, name,
                    " must not be expanded: several of its elements share one place in memory. Clone it first");
}

// patch_swap_ (`InPlace`) and patch_replace: choose, and exchange rows in place or move them to a new tensor. tau, exact_steps
// and relax serve the backward pass alone.
template <bool InPlace>
auto replace(Tensor target_tensor, Tensor source_tensor, Tensor gate_weight, std::optional<Tensor> gate_bias,
             std::optional<Tensor> seed, std::optional<Tensor> noise_target, std::optional<Tensor> noise_source,
             std::int64_t k, double, double noise_scale, std::int64_t selection, bool highest, bool by_score, std::int64_t,
             bool, std::int64_t first_row) {
  const pare::Type type = type_of(target_tensor, "target");
  if (InPlace) {
    check_writable(target_tensor, "target");
    check_writable(source_tensor, "source");
  }
  const TokenInput target(target_tensor, "target", InPlace), source(source_tensor, "source", InPlace);
  source.check_like(target, "source");
  const std::int64_t batch = target.batch, targets = target.view.patches, sources = source.view.patches;
  check_k(k, std::min(targets, sources));
  STD_TORCH_CHECK(selection >= 0 && selection <= 2, "selection must be 0, 1 or 2, got ", selection);
  const auto how = static_cast<pare::Selection>(selection);
  const bool scored = how != pare::Selection::random, noisy = how != pare::Selection::topk;
  STD_TORCH_CHECK(scored || seed || (noise_target && noise_source), "selection 2 (random) needs a seed or noise");
  const ScalarType acc = acc_of(type);
  const Gate gate(gate_weight, gate_bias, type, target.features);
  const std::optional<Tensor> none;
  const NoiseInput for_target(noisy ? noise_target : none, noisy ? seed : none, pare::target_stream, first_row, acc,
                              batch * targets, "noise_target");
  const NoiseInput for_source(noisy ? noise_source : none, noisy ? seed : none, pare::source_stream, first_row, acc,
                              batch * sources, "noise_source");
  const Tensor target_index = empty({batch, k}, ScalarType::Long), source_index = empty({batch, k}, ScalarType::Long);
  const Tensor scores = empty({scores_numel(batch, targets, sources, scored)}, acc);
  std::optional<Tensor> mixed;
  if (!InPlace) mixed = empty({batch, targets, target.features}, target_tensor.scalar_type());
  pare::PatchReplace p{.type = type,
                       .features = target.features,
                       .k = k,
                       .target = target.view,
                       .source = source.view,
                       .mixed = mixed ? mixed->data_ptr() : nullptr,
                       .weight = gate.weight(),
                       .bias = gate.bias(),
                       .noise_target = for_target.noise,
                       .noise_source = for_source.noise,
                       .noise_scale = noise_scale,
                       .selection = how,
                       .highest = highest,
                       .by_score = by_score,
                       .streaming = mixed && beyond_cache(bytes_of(target, type)),
                       .target_index = static_cast<std::int64_t*>(target_index.data_ptr()),
                       .source_index = static_cast<std::int64_t*>(source_index.data_ptr())};
  point_to_scores(p, scores.data_ptr(), acc, batch, targets, sources, scored);
  for_samples(batch, 1, (targets + sources) * (target.features + 16),
            [&](std::int64_t first, std::int64_t last) { pare::kernels().patch_replace(p, first, last); });
  if constexpr (InPlace) {
    return std::tuple(target_index, source_index, scores);
  } else {
    return std::tuple(*mixed, target_index, source_index, scores);
  }
}

// All of an index at once, so that the loop is a vector loop: as unsigned numbers negative ones are large.
void check_index(const Numbers& index, std::int64_t count, std::int64_t patches, const char* name) {
  const auto* values = static_cast<const std::uint64_t*>(index.data());
  std::uint64_t wrong = 0;
  for (std::int64_t i = 0; i < count; ++i) wrong |= values[i] >= static_cast<std::uint64_t>(patches) ? 1u : 0u;
  if (wrong == 0) return;
  const std::uint64_t* first = std::find_if(values, values + count, [&](std::uint64_t value) {
    return value >= static_cast<std::uint64_t>(patches);
  });
  STD_TORCH_CHECK(false, name, " must name patches, from 0 to ", patches - 1, ", got ", static_cast<std::int64_t>(*first));
}

// ---- their gradient ---------------------------------------------------------------------------------------------------

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Of patch_swap_ (`Swapped`: target and source are the buffers after the exchange) and of patch_replace, which has no grad_source.
template <bool Swapped>
Gradients replace_backward(Tensor grad, std::optional<Tensor> grad_source, Tensor target, Tensor source, Tensor gate_weight,
                           Tensor target_index, Tensor source_index, Tensor scores, double tau, std::int64_t exact_steps,
                           bool highest, bool relax, bool need_target, bool need_source, bool need_gate) {
  const pare::Type type = type_of(target, "target");
  const ScalarType acc = acc_of(type), dtype = target.scalar_type();
  // Without the relaxation nothing is read from the tokens: their strides do not matter.
  const TokenInput t(target, "target", !relax), s(source, "source", !relax), y(grad, "grad");
  std::optional<TokenInput> y_source;
  s.check_like(t, "source");
  y.check_like(t, "grad");
  const std::int64_t batch = t.batch, targets = t.view.patches, sources = s.view.patches;
  STD_TORCH_CHECK(y.view.patches == targets, "grad must have the shape of target");
  if (grad_source) {
    y_source.emplace(*grad_source, "grad_source");
    y_source->check_like(s, "grad_source");
    STD_TORCH_CHECK(y_source->view.patches == sources, "grad_source must have the shape of source");
  }
  STD_TORCH_CHECK(target_index.dim() == 2, "target_index must have shape (batch, k)");
  const std::int64_t k = target_index.size(1);
  check_k(k, std::min(targets, sources));
  const Numbers slots(target_index, ScalarType::Long, batch * k, "target_index");
  const Numbers patches(source_index, ScalarType::Long, batch * k, "source_index");
  check_index(slots, batch * k, targets, "target_index");
  check_index(patches, batch * k, sources, "source_index");
  const Gate gate(gate_weight, std::nullopt, type, t.features);
  std::optional<Numbers> numbers;
  if (relax) numbers.emplace(scores, acc, scores_numel(batch, targets, sources, true), "scores");
  const Tensor dtarget = empty_if(need_target, {batch, targets, t.features}, dtype);
  const Tensor dsource = empty_if(need_source, {batch, sources, t.features}, dtype);
  const Tensor dweight = empty_like_gate(need_gate, gate_weight, acc), dbias = empty_if(need_gate, {1}, acc);
  pare::PatchReplaceBackward p{.type = type,
                               .features = t.features,
                               .k = k,
                               .grad = y.view,
                               .grad_source = y_source ? y_source->view : pare::Tokens{},
                               .target = t.view,
                               .source = s.view,
                               .swapped = Swapped,
                               .weight = gate.weight(),
                               .target_index = static_cast<const std::int64_t*>(slots.data()),
                               .source_index = static_cast<const std::int64_t*>(patches.data()),
                               .tau = tau,
                               .exact_steps = exact_steps,
                               .highest = highest,
                               .relax = relax,
                               .need_gate = need_gate,
                               .streaming = beyond_cache(bytes_of(t, type) + bytes_of(s, type)),
                               .dtarget = need_target ? dtarget.data_ptr() : nullptr,
                               .dsource = need_source ? dsource.data_ptr() : nullptr};
  if (numbers) point_to_scores(p, numbers->data(), acc, batch, targets, sources, true);
  const pare::Kernels& kernels = pare::kernels();
  const std::int64_t per_task = relax ? kernels.samples_per_task(std::min(targets, sources), type == pare::Type::f64) : 1;
  for_samples_with_sums(batch, per_task, (targets + sources) * (t.features + 16), t.features, need_gate ? &dweight : nullptr,
                      &dbias, acc, [&](std::int64_t first, std::int64_t last, double* dw, double* db) {
                        kernels.patch_replace_backward(p, first, last, dw, db);
                      });
  return {dtarget, dsource, dweight, dbias};
}

Gradients patch_replace_backward(Tensor grad, Tensor target, Tensor source, Tensor gate_weight, Tensor target_index,
                                 Tensor source_index, Tensor scores, double tau, std::int64_t exact_steps, bool highest,
                                 bool relax, bool need_target, bool need_source, bool need_gate) {
  return replace_backward<false>(grad, std::nullopt, target, source, gate_weight, target_index, source_index, scores, tau,
                                 exact_steps, highest, relax, need_target, need_source, need_gate);
}

std::string cpu_capability() { return pare::kernels().name; }

// Every operator with its function, and what types of arguments that takes: a letter for each, as _library.py writes its schemas.
#define PARE_OPERATORS(each)                             \
  each(gate_scores, gate_scores)                         \
  each(gate_scores_backward, gate_scores_backward)       \
  each(gumbel_topk, gumbel_topk)                         \
  each(gumbel_topk_backward, gumbel_topk_backward)       \
  each(patch_replace, replace<false>)                    \
  each(patch_replace_backward, patch_replace_backward)   \
  each(patch_swap_, replace<true>)                       \
  each(patch_swap_backward, replace_backward<true>)

template <class T>
constexpr char letter = '?';
template <>
constexpr char letter<Tensor> = 't';
template <>
constexpr char letter<std::optional<Tensor>> = 'o';
template <>
constexpr char letter<std::int64_t> = 'i';
template <>
constexpr char letter<double> = 'f';
template <>
constexpr char letter<bool> = 'b';

template <class Result, class... Arguments>
std::string letters(Result (*)(Arguments...)) {
  return {letter<Arguments>...};
}

std::string signatures() {
  std::string lines;
#define PARE_SIGNATURE(name, function) lines += #name " " + letters(&function) + "\n";
  PARE_OPERATORS(PARE_SIGNATURE)
  return lines;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(PARE_NAMESPACE, m) {
  m.def("cpu_capability() -> str");
  m.def("signatures() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(PARE_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&cpu_capability));
  m.impl("signatures", TORCH_BOX(&signatures));
}

STABLE_TORCH_LIBRARY_IMPL(PARE_NAMESPACE, CPU, m) {
#define PARE_IMPLEMENTATION(name, function) m.impl(#name, TORCH_BOX(&function));
  PARE_OPERATORS(PARE_IMPLEMENTATION)
}
