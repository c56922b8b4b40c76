// The steps of the relaxation, p_{i+1} = normalize(p_i (1 - p_i)^(1/tau)), and their adjoint, on all patches of a row.
//
// One source for two layouts: a row laid along the vectors (its sums end in a reduction over the lanes), or as many rows as
// there are lanes, one per lane (no reduction; for short rows). A state is a vector of weights y and one scale per row,
// p = y * scale. All arrays of T are of `Layout::values()` numbers.
//
// A patch with p > 1/2 is "dominant": 1 - p would cancel, so it is `rest`, the sum of the others over the sum of all. There
// is at most one per row; it is taken out of the vector pass (its weight is 0 there) and handled by itself, in double.
#pragma once

#include "core/math.h"

namespace pare::PARE_ISA {

// How one row, or a group of rows, lies in memory.
template <class T, bool InLanes>
struct Layout {
  static constexpr int rows = InLanes ? lanes<T> : 1;
  std::int64_t patches;

  std::int64_t vectors() const { return InLanes ? patches : (patches + lanes<T> - 1) / lanes<T>; }
  std::int64_t values() const { return vectors() * lanes<T>; }
  PARE_INLINE static std::int64_t at(std::int64_t patch, int row) { return InLanes ? patch * lanes<T> + row : patch; }

  PARE_INLINE static Vec<T> total(Vec<T> v) { return InLanes ? v : broadcast<T>(hsum<T>(v)); }
  PARE_INLINE static Vec<T> largest(Vec<T> v) { return InLanes ? v : broadcast<T>(hmax<T>(v)); }
};

// What a step knows of its state besides the weights.
template <class T>
struct Step {
  alignas(64) T scale[lanes<T>];        // p = y * scale; 0 where a row is used up
  double rest[lanes<T>];                // 1 - p of the dominant patch
  std::int64_t dominant[lanes<T>];      // its index, or -1
  T largest_p;                          // over all rows
  bool dominated;                       // whether any row has a dominant patch
};

// Binomial series of (1 - (1 - p)^(1/tau)) / p and the largest p for which each length is exact to rounding.
template <class T>
struct StepSeries {
  static constexpr int terms = 12;
  static constexpr int short_terms[3] = {2, 4, 8};
  double inverse_tau;
  T coefficient[terms];
  T limit[3];
  T full_limit;

  explicit StepSeries(double tau) : inverse_tau(1 / tau) {
    const double tolerance = sizeof(T) == 4 ? 1e-8 : 1e-17;
    double binomial = inverse_tau;  // of (1/tau over j), alternating in sign, for j = 1
    double next[terms + 1];
    for (int j = 0; j <= terms; ++j) {
      next[j] = binomial;
      if (j < terms) coefficient[j] = static_cast<T>(binomial);
      binomial *= -(inverse_tau - (j + 1)) / (j + 2);
    }
    const auto reach = [&](int used) {
      double first_left_out = 0;  // the largest of the coefficients that follow bounds the remainder
      for (int j = used; j <= terms; ++j) first_left_out = std::max(first_left_out, std::fabs(next[j]));
      return first_left_out == 0 ? 0.25 : std::min(0.25, std::pow(tolerance / first_left_out, 1.0 / used));
    };
    for (int i = 0; i < 3; ++i) limit[i] = static_cast<T>(reach(short_terms[i]));
    full_limit = static_cast<T>(reach(terms));
  }
};

template <class T, bool InLanes>
class Flow {
 public:
  using V = Vec<T>;
  using L = Layout<T, InLanes>;

  Flow(std::int64_t patches, double tau) : layout_{patches}, tau_(tau), series_(tau) {}

  const L& layout() const { return layout_; }
  double tau() const { return tau_; }

  // p_1 = softmax(s / tau). `y` holds the scores, padded with NaN, and receives the weights. NaN, and what lies more than
  // 700 tau below the top, counts as -inf: in a row with scores of +inf these share everything.
  void start(T* y, Step<T>& step) const {
    const V lowest = broadcast<T>(-std::numeric_limits<T>::infinity());
    V top = lowest;
    for_vectors([&](std::int64_t i) { top = vmax(load(y + i), top); });
    top = L::largest(top);
    const V inverse_tau = broadcast<T>(static_cast<T>(1 / tau_));
    const V farthest = broadcast<T>(T(-700));  // e^-700 is still a normal double
    const V correction = broadcast<T>(static_cast<T>(1 / tau_ - static_cast<T>(1 / tau_)));
    V sum{}, largest{};
    for_vectors([&](std::int64_t i) {
      const V s = load(y + i);
      const V d = s - top;
      // (s - top) / tau with its rounding errors: far below the top, a float alone would lose a few units of e^x.
      const V shift = d - s;
      const V lost = (s - (d - shift)) - (top + shift);
      const V x = d * inverse_tau;
      const V error = fma(d, inverse_tau, -x) + fma(d, correction, lost * inverse_tau);
      V w = exp<T>(x);
      w = fma(w, error, w);
      w = x >= farthest ? w : V{};
      w = s == top ? V{} + 1 : w;
      w = (s > lowest) & (w > 0) ? w : V{};
      store(y + i, w);
      sum += w;
      largest = vmax(w, largest);
    });
    finish(y, sum, largest, step);
  }

  // One step from (y, step) to (next, next_step); adds p to h unless h is null. `y` is changed only during the call.
  void advance(T* y, const Step<T>& step, T* next, Step<T>& next_step, T* h) const {
    T taken[lanes<T>] = {};
    take_dominant(y, step, taken);
    V sum{}, largest{};
    const T p = step.largest_p;
    if (p <= series_.limit[0]) {
      pass<2, false>(y, step, next, h, sum, largest);
    } else if (p <= series_.limit[1]) {
      pass<4, false>(y, step, next, h, sum, largest);
    } else if (p <= series_.limit[2]) {
      pass<8, false>(y, step, next, h, sum, largest);
    } else {
      pass<12, true>(y, step, next, h, sum, largest);
    }
    if (step.dominated) {
      for (int r = 0; r < L::rows; ++r) {
        if (step.dominant[r] < 0) continue;
        const std::int64_t at = L::at(step.dominant[r], r);
        // A patch that is alone keeps p = 1.
        const double weight = step.rest[r] > 0 ? (1 - step.rest[r]) * std::pow(step.rest[r], series_.inverse_tau) : 1;
        y[at] = taken[r];
        next[at] = static_cast<T>(weight);
        if (h) h[at] += static_cast<T>(1 - step.rest[r]);
        if constexpr (InLanes) {
          sum[r] += next[at];
          largest[r] = std::max(largest[r], next[at]);
        } else {
          sum[0] += next[at];
          largest[0] = std::max(largest[0], next[at]);
        }
      }
    }
    finish(next, sum, largest, next_step);
  }

  // Sums of the adjoint A over a row: of all patches, and of all but the dominant one.
  struct Sums {
    double all[lanes<T>];
    double others[lanes<T>];
  };

  // A_i = c p_i + (A_{i+1} - p_{i+1} <A_{i+1}, 1>) (1 - p_i / (tau (1 - p_i))), in place; `sums` likewise.
  void retreat(const T* c, T* a, T* y_next, const Step<T>& next, T* y, const Step<T>& step, Sums& sums) const {
    Special special[2 * lanes<T>];
    int specials = 0;
    if (step.dominated || next.dominated) specials = take_special(a, y_next, next, y, step, special);
    V totals{};
    for (int r = 0; r < lanes<T>; ++r) totals[r] = static_cast<T>(sums.all[InLanes ? r : 0]);
    const V scale = load(step.scale), scale_next = load(next.scale) * totals;
    const V inverse_tau = broadcast<T>(static_cast<T>(1 / tau_));
    V sum = sum_over([&](std::int64_t i) {
      const V p = load(y + i) * scale;
      const V projected = fma(-load(y_next + i), scale_next, load(a + i));
      const V slope = fma(-p / (1 - p), inverse_tau, broadcast<T>(1));
      const V value = fma(load(c + i), p, projected * slope);
      store(a + i, value);
      return value;
    });
    sum = L::total(sum);
    const Sums before = sums;
    for (int r = 0; r < L::rows; ++r) sums.all[r] = sums.others[r] = sum[r];
    for (int s = 0; s < specials; ++s) {
      const Special& entry = special[s];
      const int r = entry.row;
      const bool dominant = entry.index == step.dominant[r];
      y[entry.at] = entry.y;
      y_next[entry.at] = entry.y_next;
      const double p = dominant ? 1 - step.rest[r] : double(entry.y) * step.scale[r];
      const double rest = dominant ? step.rest[r] : 1 - p;
      const double p_next = double(entry.y_next) * next.scale[r];
      const double projected = entry.index == next.dominant[r]
                                   ? entry.a * next.rest[r] - (1 - next.rest[r]) * before.others[r]
                                   : entry.a - p_next * before.all[r];
      const double slope = rest > 0 ? 1 - p / (tau_ * rest) : 0;
      const double value = (p > 0 ? c[entry.at] * p : 0) + projected * slope;
      a[entry.at] = static_cast<T>(value);
      sums.all[r] += value;
      if (!dominant) sums.others[r] += value;
    }
  }

  // ds = (A_1 - p_1 <A_1, 1>) / tau, in place.
  void arrive(T* a, const T* y, const Step<T>& step, const Sums& sums) const {
    double dominant[lanes<T>] = {};
    for (int r = 0; r < L::rows; ++r) {
      if (step.dominant[r] < 0) continue;
      const double value = a[L::at(step.dominant[r], r)];
      dominant[r] = (value * step.rest[r] - (1 - step.rest[r]) * sums.others[r]) / tau_;
    }
    V totals{};
    for (int r = 0; r < lanes<T>; ++r) totals[r] = static_cast<T>(sums.all[InLanes ? r : 0]);
    const V scale = load(step.scale) * totals;
    const V inverse_tau = broadcast<T>(static_cast<T>(1 / tau_));
    for_vectors([&](std::int64_t i) { store(a + i, fma(-load(y + i), scale, load(a + i)) * inverse_tau); });
    for (int r = 0; r < L::rows; ++r)
      if (step.dominant[r] >= 0) a[L::at(step.dominant[r], r)] = static_cast<T>(dominant[r]);
  }

  // The sums of an adjoint that adds up to 0, as that of the tail does.
  Sums sums_of_zero(const T* a, const Step<T>& step) const {
    Sums sums{};
    for (int r = 0; r < L::rows; ++r)
      if (step.dominant[r] >= 0) sums.others[r] = -double(a[L::at(step.dominant[r], r)]);
    return sums;
  }

  template <class Body>
  PARE_INLINE void for_vectors(Body body) const {
    const std::int64_t values = layout_.values();
    for (std::int64_t i = 0; i < values; i += lanes<T>) body(i);
  }

  // The sum of term(i) over the vectors, in four parts: short chains of additions are faster, and round less.
  template <class Term>
  PARE_INLINE V sum_over(Term term) const {
    constexpr int parts = 4;
    const std::int64_t values = layout_.values();
    V sum[parts] = {};
    std::int64_t i = 0;
    for (; i + parts * lanes<T> <= values; i += parts * lanes<T>)
      for (int part = 0; part < parts; ++part) sum[part] += term(i + part * lanes<T>);
    for (int part = 0; i < values; i += lanes<T>) sum[part++] += term(i);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

 private:
  struct Special {
    std::int64_t index, at;
    int row;
    T y, y_next;
    double a;
  };

  void take_dominant(T* y, const Step<T>& step, T* taken) const {
    if (!step.dominated) return;
    for (int r = 0; r < L::rows; ++r) {
      if (step.dominant[r] < 0) continue;
      T& weight = y[L::at(step.dominant[r], r)];
      taken[r] = weight;
      weight = 0;
    }
  }

  // Zeroes the dominant patches of either state in all arrays, so that the pass gives 0 for them.
  int take_special(T* a, T* y_next, const Step<T>& next, T* y, const Step<T>& step, Special* special) const {
    int count = 0;
    for (int r = 0; r < L::rows; ++r) {
      const std::int64_t indices[2] = {step.dominant[r], next.dominant[r]};
      for (int which = 0; which < 2; ++which) {
        const std::int64_t index = indices[which];
        if (index < 0 || (which == 1 && index == indices[0])) continue;
        const std::int64_t at = L::at(index, r);
        special[count++] = {index, at, r, y[at], y_next[at], double(a[at])};
        y[at] = y_next[at] = a[at] = 0;
      }
    }
    return count;
  }

  template <int Terms, bool MayExceed>
  PARE_INLINE void pass(const T* y, const Step<T>& step, T* next, T* h, V& sum, V& largest) const {
    V coefficient[Terms];
    for (int j = 0; j < Terms; ++j) coefficient[j] = broadcast<T>(series_.coefficient[j]);
    const V scale = load(step.scale);
    const V limit = broadcast<T>(series_.full_limit);
    V top{};
    sum = sum_over([&](std::int64_t i) {
      const V p = load(y + i) * scale;
      V delta = coefficient[Terms - 1];
      for (int j = Terms - 2; j >= 0; --j) delta = fma(delta, p, coefficient[j]);
      delta *= p;
      if (MayExceed && any(p > limit)) delta = one_minus_power<T>(p, static_cast<T>(series_.inverse_tau));
      const V weight = fma(-p, delta, p);
      store(next + i, weight);
      if (h) store(h + i, load(h + i) + p);
      top = vmax(weight, top);
      return weight;
    });
    largest = top;
  }

  // Normalises: scale, and the dominant patch if there is one.
  void finish(T* y, V sum, V largest, Step<T>& step) const {
    sum = L::total(sum);
    largest = L::largest(largest);
    step.dominated = any(largest > T(0.5) * sum);
    if (step.dominated) {
      set_dominant(y, sum, largest, step);
    } else {
      for (int r = 0; r < lanes<T>; ++r) step.dominant[r] = -1;
    }
    const V tiny = broadcast<T>(sizeof(T) == 4 ? T(0x1p-100) : T(0x1p-900));
    V lift = broadcast<T>(1);
    if (any((sum < tiny) & (sum > 0))) {
      // So little is left that 1 / sum might overflow: a power of two brings the row back into range.
      lift = (sum < tiny) & (sum > 0) ? 1 / tiny : lift;
      for_vectors([&](std::int64_t i) { store(y + i, load(y + i) * lift); });
    }
    const V scale = sum > 0 ? 1 / (sum * lift) : V{};
    store(step.scale, scale);
    step.largest_p = hmax<T>(largest * lift * scale);
  }

  void set_dominant(T* y, V& sum, V largest, Step<T>& step) const {
    T taken[lanes<T>] = {};
    for (int r = 0; r < lanes<T>; ++r) step.dominant[r] = -1;
    for (int r = 0; r < L::rows; ++r) {
      if (!(largest[r] > T(0.5) * sum[r])) continue;
      std::int64_t patch = 0;
      while (y[L::at(patch, r)] != largest[r]) ++patch;  // ends: `largest` is one of them
      step.dominant[r] = patch;
    }
    take_dominant(y, step, taken);
    const V others = L::total(sum_over([&](std::int64_t i) { return load(y + i); }));
    for (int r = 0; r < L::rows; ++r) {
      if (step.dominant[r] < 0) continue;
      y[L::at(step.dominant[r], r)] = taken[r];
      const T all = taken[r] + others[r];
      step.rest[r] = double(others[r]) / (double(taken[r]) + others[r]);
      if constexpr (InLanes) {
        sum[r] = all;
      } else {
        sum = broadcast<T>(all);
      }
    }
  }

  L layout_;
  double tau_;
  StepSeries<T> series_;
};

}  // namespace pare::PARE_ISA
