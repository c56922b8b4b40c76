// The operator on whole samples: score, add noise, choose, pair, move rows; and the gradient of all that.
#pragma once

#include "core/kernels.h"
#include "core/philox.h"
#include "core/relax.h"
#include "core/tokens.h"

namespace pare::PARE_ISA {

template <class Token>
PARE_INLINE Token* row_of(const Tokens& tokens, std::int64_t sample, std::int64_t row) {
  return static_cast<Token*>(tokens.data) + sample * tokens.sample_stride + row * tokens.row_stride;
}

// The (N,) scores of the patches of one sample, of any strides.
template <class Token>
void score_sample(const Tokens& tokens, std::int64_t sample, std::int64_t features, const Acc<Token>* weight,
                Acc<Token> bias, Acc<Token>* scores) {
  const Token* first = row_of<const Token>(tokens, sample, 0);
  if (tokens.feature_stride == 1)
    return gate_scores(first, tokens.row_stride, tokens.patches, features, weight, bias, scores);
  Scratch scratch(Scratch::bytes<Token>(features));
  auto* row = scratch.take<Token>(features);
  for (std::int64_t n = 0; n < tokens.patches; ++n) {
    for (std::int64_t d = 0; d < features; ++d) row[d] = first[n * tokens.row_stride + d * tokens.feature_stride];
    scores[n] = dot(row, weight, features) + bias;
  }
  sigmoid_row(scores, tokens.patches);
}

// noisy = gate + noise_scale * noise, (N,) of one sample; the gate alone without noise, the noise alone without a gate.
template <class T>
void add_noise(const Noise& noise, std::int64_t sample, std::int64_t patches, double noise_scale, const T* gate, T* noisy) {
  const auto bytes = sizeof(T) * static_cast<std::size_t>(patches);
  if (!noise.given && !noise.seeded) {
    if (patches > 0) std::memcpy(noisy, gate, bytes);
    return;
  }
  const T* values = noise.given ? static_cast<const T*>(noise.given) + sample * patches : noisy;
  const std::uint64_t row = noise.first_row + static_cast<std::uint64_t>(sample);
  if (!noise.given) gumbel_row<T>(noise.seed, noise.stream, row, patches, noisy);
  const T scale = static_cast<T>(noise_scale);
  if (gate) {
    for (std::int64_t i = 0; i < patches; ++i) noisy[i] = gate[i] + scale * values[i];
  } else if (noise.given && patches > 0) {
    std::memcpy(noisy, values, bytes);
  }
}

// Moves the rows of tokens of one sample to `mixed`, or exchanges them in place; target_index and source_index (k,).
template <class Token>
void move_rows(const PatchReplace& p, std::int64_t sample, const std::int64_t* target_index,
               const std::int64_t* source_index) {
  const std::int64_t bytes = p.features * static_cast<std::int64_t>(sizeof(Token));
  constexpr std::int64_t ahead = 4;
  if (p.mixed) {
    auto* out = static_cast<Token*>(p.mixed) + sample * p.target.patches * p.features;
    std::int64_t j = 0;
    for (std::int64_t n = 0; n < p.target.patches; ++n) {
      const Token* from;
      if (j < p.k && target_index[j] == n) {
        from = row_of<const Token>(p.source, sample, source_index[j]);
        if (j + ahead < p.k) prefetch_row(row_of<const Token>(p.source, sample, source_index[j + ahead]), bytes);
        ++j;
      } else {
        from = row_of<const Token>(p.target, sample, n);
      }
      copy_row(out + n * p.features, from, bytes, p.streaming);
    }
    return;
  }
  const bool rows_are_dense = p.target.feature_stride == 1 && p.source.feature_stride == 1;
  for (std::int64_t j = 0; j < p.k; ++j) {
    Token* a = row_of<Token>(p.target, sample, target_index[j]);
    Token* b = row_of<Token>(p.source, sample, source_index[j]);
    if (rows_are_dense) {
      exchange_rows(a, b, bytes);
    } else {
      for (std::int64_t d = 0; d < p.features; ++d)
        std::swap(a[d * p.target.feature_stride], b[d * p.source.feature_stride]);
    }
  }
}

template <class Token>
void patch_replace_samples(const PatchReplace& p, std::int64_t first, std::int64_t last) {
  using T = Acc<Token>;
  const auto* weight = static_cast<const T*>(p.weight);
  const T bias = static_cast<T>(p.bias);
  const std::int64_t targets = p.target.patches, sources = p.source.patches;
  for (std::int64_t sample = first; sample < last; ++sample) {
    T* gate_target = nullptr;
    T* gate_source = nullptr;
    if (p.selection != Selection::random) {
      gate_target = static_cast<T*>(p.gate_target) + sample * targets;
      gate_source = static_cast<T*>(p.gate_source) + sample * sources;
      score_sample<Token>(p.source, sample, p.features, weight, bias, gate_source);
      score_sample<Token>(p.target, sample, p.features, weight, bias, gate_target);
    }
    T* noisy_target = static_cast<T*>(p.noisy_target) + sample * targets;
    T* noisy_source = static_cast<T*>(p.noisy_source) + sample * sources;
    add_noise(p.noise_target, sample, targets, p.noise_scale, gate_target, noisy_target);
    add_noise(p.noise_source, sample, sources, p.noise_scale, gate_source, noisy_source);
    std::int64_t* target_index = p.target_index + sample * p.k;
    std::int64_t* source_index = p.source_index + sample * p.k;
    choose(noisy_target, targets, noisy_source, sources, p.k, p.highest, p.by_score, target_index, source_index);
    move_rows<Token>(p, sample, target_index, source_index);
  }
  if (p.streaming) stream_fence();
}

template <class T>
void gumbel_topk_samples(const GumbelTopK& p, std::int64_t first, std::int64_t last) {
  const std::int64_t patches = p.patches;
  Scratch scratch(2 * Scratch::bytes<Key<T>>(patches) + Scratch::bytes<std::int64_t>(patches + 1));
  auto* keys = scratch.take<Key<T>>(patches);
  auto* room = scratch.take<Key<T>>(patches);
  auto* chosen = scratch.take<std::int64_t>(patches + 1);
  for (std::int64_t sample = first; sample < last; ++sample) {
    T* noisy = static_cast<T*>(p.noisy) + sample * patches;
    add_noise(p.noise, sample, patches, p.noise_scale, static_cast<const T*>(p.scores) + sample * patches, noisy);
    order_keys(noisy, patches, false, keys);
    split<Key<T>>(keys, patches, p.k, chosen, nullptr, room);
    std::copy(chosen, chosen + p.k, p.indices + sample * p.k);
    T* mask = static_cast<T*>(p.mask) + sample * patches;
    std::fill(mask, mask + patches, T(0));
    for (std::int64_t j = 0; j < p.k; ++j) mask[chosen[j]] = 1;
  }
  const Relaxation relaxation{patches, p.k, p.tau, p.exact_steps, false, automatic};
  relax_forward(relaxation, static_cast<const T*>(p.noisy) + first * patches, last - first,
                static_cast<T*>(p.relaxed) + first * patches);
}

template <class T>
void relax_samples(const Relax& p, std::int64_t first, std::int64_t last) {
  const Relaxation relaxation{p.patches, p.chosen, p.tau, p.exact_steps, p.negate, p.route};
  const auto* scores = static_cast<const T*>(p.scores) + first * p.patches;
  auto* result = static_cast<T*>(p.result) + first * p.patches;
  if (p.upstream) {
    relax_backward(relaxation, static_cast<const T*>(p.upstream) + first * p.patches, scores, last - first, result);
  } else {
    relax_forward(relaxation, scores, last - first, result);
  }
}

template <class Token>
void gate_scores_backward_samples(const GateScoresBackward& p, std::int64_t first, std::int64_t last, double* dweight,
                                double* dbias) {
  using T = Acc<Token>;
  Scratch scratch(WeightGradient<Token>::bytes(p.features));
  WeightGradient<Token> gradient(p.features, scratch);
  const auto* grad = static_cast<const T*>(p.grad);
  const auto* scores = static_cast<const T*>(p.scores);
  for (std::int64_t sample = first; sample < last; ++sample) {
    for (std::int64_t n = 0; n < p.tokens.patches; ++n) {
      const std::int64_t at = sample * p.tokens.patches + n;
      const T dz = grad[at] * scores[at] * (1 - scores[at]);
      if (p.need_weight) gradient.add(dz, row_of<const Token>(p.tokens, sample, n));
      if (p.dtokens) {
        auto* out = static_cast<Token*>(p.dtokens) + at * p.features;
        gradient_row<Token>(out, nullptr, dz, static_cast<const T*>(p.weight), p.features, p.streaming);
      }
    }
  }
  if (p.need_weight) gradient.add_to(dweight, dbias);
  if (p.streaming) stream_fence();
}

// The gradient of patch_replace for a few samples.
//
// First the row dots, which touch the tokens once; then the adjoint of the relaxation for all these samples together, so that
// short rows can fill the lanes; then one pass over the tokens, now in a cache, that writes both gradients and adds up dw.
template <class Token>
class PatchReplaceGradient {
 public:
  using T = Acc<Token>;

  PatchReplaceGradient(const PatchReplaceBackward& p, std::int64_t first, std::int64_t last)
      : p_(p),
        first_(first),
        count_(last - first),
        targets_(p.target.patches),
        sources_(p.source.patches),
        relax_target_(p.relax && (p.need_gate || p.dtarget)),
        relax_source_(p.relax && (p.need_gate || p.dsource)),
        scratch_(Scratch::bytes<std::int64_t>(count_ * targets_) + Scratch::bytes<std::int64_t>(count_ * sources_) +
                 2 * Scratch::bytes<T>(count_ * targets_) + 2 * Scratch::bytes<T>(count_ * sources_) +
                 WeightGradient<Token>::bytes(p.features)),
        source_in_(scratch_.take<std::int64_t>(count_ * targets_)),
        slot_of_(scratch_.take<std::int64_t>(count_ * sources_)) {}

  void run(double* dweight, double* dbias) {
    invert_indices();
    T* dz_target = scratch_.take<T>(count_ * targets_);
    T* dz_source = scratch_.take<T>(count_ * sources_);
    T* c_target = scratch_.take<T>(count_ * targets_);
    T* c_source = scratch_.take<T>(count_ * sources_);
    if (relax_target_ || relax_source_) row_dots(c_target, c_source);
    if (relax_target_)
      score_gradient(targets_, targets_ - p_.k, p_.highest, p_.noisy_target, p_.gate_target, c_target, dz_target);
    if (relax_source_) score_gradient(sources_, p_.k, false, p_.noisy_source, p_.gate_source, c_source, dz_source);
    write(dz_target, dz_source, dweight, dbias);
    if (p_.streaming) stream_fence();
  }

 private:
  static constexpr std::int64_t none = -1;

  // source_in (count, Nt): the source patch in each target slot; slot_of (count, Ns): the slot of each source patch; or none.
  void invert_indices() {
    std::fill(source_in_, source_in_ + count_ * targets_, none);
    std::fill(slot_of_, slot_of_ + count_ * sources_, none);
    for (std::int64_t i = 0; i < count_; ++i) {
      for (std::int64_t j = 0; j < p_.k; ++j) {
        const std::int64_t at = (first_ + i) * p_.k + j;
        source_in_[i * targets_ + p_.target_index[at]] = p_.source_index[at];
        slot_of_[i * sources_ + p_.source_index[at]] = p_.target_index[at];
      }
    }
  }

  const Token* target_row(std::int64_t i, std::int64_t n) const {
    const std::int64_t source = source_in_[i * targets_ + n];
    return p_.swapped && source != none ? row_of<const Token>(p_.source, first_ + i, source)
                                          : row_of<const Token>(p_.target, first_ + i, n);
  }
  const Token* source_row(std::int64_t i, std::int64_t m) const {
    const std::int64_t slot = slot_of_[i * sources_ + m];
    return p_.swapped && slot != none ? row_of<const Token>(p_.target, first_ + i, slot)
                                        : row_of<const Token>(p_.source, first_ + i, m);
  }

  // <grad[slot], mixed[slot]>: of a kept slot it belongs to its target patch, of a replaced one to its source patch. c_target
  // (count, Nt), c_source (count, Ns).
  void row_dots(T* c_target, T* c_source) const {
    std::fill(c_source, c_source + count_ * sources_, T(0));
    for (std::int64_t i = 0; i < count_; ++i) {
      for (std::int64_t n = 0; n < targets_; ++n) {
        const Token* y = row_of<const Token>(p_.grad, first_ + i, n);
        const std::int64_t source = source_in_[i * targets_ + n];
        T& c = c_target[i * targets_ + n];
        if (source == none) {
          c = relax_target_ ? dot(y, target_row(i, n), p_.features) : T(0);
        } else {
          c = 0;
          if (relax_source_) c_source[i * sources_ + source] = dot(y, source_row(i, source), p_.features);
        }
      }
    }
  }

  // dz = J(h)^T c * g (1 - g), all (count, N)
  void score_gradient(std::int64_t patches, std::int64_t chosen, bool negate, const void* noisy, const void* gate,
                      const T* c, T* dz) const {
    const Relaxation relaxation{patches, chosen, p_.tau, p_.exact_steps, negate, automatic};
    relax_backward(relaxation, c, static_cast<const T*>(noisy) + first_ * patches, count_, dz);
    const T* g = static_cast<const T*>(gate) + first_ * patches;
    for (std::int64_t i = 0; i < count_ * patches; ++i) dz[i] *= g[i] * (1 - g[i]);
  }

  void write(const T* dz_target, const T* dz_source, double* dweight, double* dbias) {
    WeightGradient<Token> gradient(p_.features, scratch_);
    const bool need_weight = p_.need_gate && p_.relax;
    for (std::int64_t i = 0; i < count_; ++i) {
      const std::int64_t sample = first_ + i;
      write_rows(
          targets_, p_.dtarget, sample, relax_target_ ? dz_target + i * targets_ : nullptr, need_weight ? &gradient : nullptr,
          [&](std::int64_t n) {
            const std::int64_t source = source_in_[i * targets_ + n];
            return source == none ? row_of<const Token>(p_.grad, sample, n) : grad_source_row(sample, source);
          },
          [&](std::int64_t n) { return target_row(i, n); });
      write_rows(
          sources_, p_.dsource, sample, relax_source_ ? dz_source + i * sources_ : nullptr, need_weight ? &gradient : nullptr,
          [&](std::int64_t m) {
            const std::int64_t slot = slot_of_[i * sources_ + m];
            return slot == none ? grad_source_row(sample, m) : row_of<const Token>(p_.grad, sample, slot);
          },
          [&](std::int64_t m) { return source_row(i, m); });
    }
    if (need_weight) gradient.add_to(dweight, dbias);
  }

  // The rows of one modality of one sample: base(row) + dz[row] * weight to `out`, the base alone without dz; dz[row] * x(row)
  // to the gradient of the weight. `out` and `gradient` may be null.
  template <class Base, class X>
  PARE_INLINE void write_rows(std::int64_t rows, void* out, std::int64_t sample, const T* dz, WeightGradient<Token>* gradient,
                              Base base, X x) const {
    if (!out && !gradient) return;
    const auto* weight = static_cast<const T*>(p_.weight);
    const std::int64_t bytes = p_.features * static_cast<std::int64_t>(sizeof(Token));
    auto* to = static_cast<Token*>(out) + (out ? sample * rows * p_.features : 0);
    for (std::int64_t n = 0; n < rows; ++n) {
      if (gradient) gradient->add(dz[n], x(n));
      if (!out) continue;
      if (dz) {
        gradient_row<Token>(to + n * p_.features, base(n), dz[n], weight, p_.features, p_.streaming);
      } else {
        copy_row(to + n * p_.features, base(n), bytes, p_.streaming);
      }
    }
  }

  const Token* grad_source_row(std::int64_t sample, std::int64_t m) const {
    return p_.grad_source.data ? row_of<const Token>(p_.grad_source, sample, m) : nullptr;
  }

  const PatchReplaceBackward& p_;
  std::int64_t first_, count_, targets_, sources_;
  bool relax_target_, relax_source_;
  Scratch scratch_;
  std::int64_t *source_in_, *slot_of_;
};

}  // namespace pare::PARE_ISA
