// The relaxed indicator h of the n best of each row and the product of its transposed Jacobian with a vector.
//
//   p_1 = softmax(s / tau),  p_{i+1} = normalize(p_i (1 - p_i)^(1/tau)),  h = p_1 + ... + p_m + tail,  m = exact_steps
//
// (Xie and Ermon, IJCAI 2019, with a closed-form tail for the other n - m steps.) The route is chosen by the shape and the
// scores: rows in the lanes for short rows, node compression for long rows and many steps, else the full width of a row;
// double wherever float would not hold the answer to a few units of rounding.
#pragma once

#include "core/nodes.h"
#include "core/tail.h"

namespace pare::PARE_ISA {

struct Relaxation {
  std::int64_t patches;  // N
  std::int64_t chosen;   // n, 0 <= n <= N
  double tau;
  std::int64_t exact_steps;  // -1: all
  bool negate;               // relax -s
  int route;                 // Route; automatic unless a test forces one

  std::int64_t exact() const { return exact_steps < 0 ? chosen : std::min(exact_steps, chosen); }
  std::int64_t tail() const { return chosen - exact(); }
};

inline constexpr std::int64_t longest_in_lanes = 128;
inline constexpr std::int64_t shortest_in_float = 32;  // shorter rows cost nothing, and their sums may cancel
inline constexpr std::int64_t most_steps_in_float = 64;
inline constexpr std::int64_t fewest_patches_for_nodes = 192;
inline constexpr std::int64_t history_bytes = 384 * 1024;  // below it all steps are kept, above it checkpoints

// The steps of one row, or of as many rows as there are lanes: forward, and back with checkpoints every sqrt(m) steps.
template <class T, bool InLanes>
class Rows {
 public:
  using F = Flow<T, InLanes>;

  explicit Rows(const Relaxation& r)
      : relaxation_(r),
        flow_(r.patches, r.tau),
        values_(flow_.layout().values()),
        exact_(r.exact()),
        stride_(stride(exact_, values_)),
        segments_(exact_ == 0 ? 0 : (exact_ + stride_ - 1) / stride_) {}

  // (rows, N) scores to h (rows, N); at most as many rows as there are lanes.
  template <class S>
  void forward(const S* scores, int rows, S* h_out) const {
    Scratch scratch(3 * Scratch::bytes<T>(values_));
    T* y = scratch.take<T>(values_);
    T* next = scratch.take<T>(values_);
    T* h = scratch.take<T>(values_);
    Step<T> step, next_step;
    gather(scores, rows, y, std::numeric_limits<T>::quiet_NaN(), relaxation_.negate);
    flow_.start(y, step);
    std::fill(h, h + values_, T(0));
    for (std::int64_t i = 0; i < exact_; ++i) {
      flow_.advance(y, step, next, next_step, h);
      std::swap(y, next);
      std::swap(step, next_step);
    }
    if (relaxation_.tail() > 0)
      Tail<T, InLanes>(flow_, y, step, static_cast<double>(relaxation_.tail())).add_to(h);
    scatter(h, rows, h_out, false);
  }

  // (rows, N) upstream and scores to ds (rows, N).
  template <class S>
  void backward(const S* upstream, const S* scores, int rows, S* ds_out) const {
    const std::int64_t kept = segments_ > 1 ? segments_ : 0;
    const std::int64_t arrays = 2 + (stride_ + 1) + kept;
    Scratch scratch(static_cast<std::size_t>(arrays) * Scratch::bytes<T>(values_) +
                    Scratch::bytes<Step<T>>(stride_ + 1 + kept));
    T* c = scratch.take<T>(values_);
    T* a = scratch.take<T>(values_);
    T* y = scratch.take<T>(values_ * (stride_ + 1));
    T* checkpoints = scratch.take<T>(values_ * kept);
    auto* steps = scratch.take<Step<T>>(stride_ + 1 + kept);
    Step<T>* checkpoint_steps = steps + stride_ + 1;

    gather(upstream, rows, c, T(0), false);
    gather(scores, rows, y, std::numeric_limits<T>::quiet_NaN(), relaxation_.negate);
    flow_.start(y, steps[0]);
    for (std::int64_t segment = 0; segment < segments_; ++segment) {
      if (kept > 0) {
        copy(y, checkpoints + segment * values_);
        checkpoint_steps[segment] = steps[0];
      }
      const std::int64_t length = run(segment, y, steps);
      if (segment + 1 < segments_) {
        copy(y + length * values_, y);
        steps[0] = steps[length];
      }
    }
    // `y` holds the last segment; its last state is where the tail starts.
    std::int64_t length = segments_ == 0 ? 0 : length_of(segments_ - 1);
    typename F::Sums sums{};
    if (relaxation_.tail() > 0) {
      Tail<T, InLanes>(flow_, y + length * values_, steps[length], static_cast<double>(relaxation_.tail())).adjoint(c, a);
      sums = flow_.sums_of_zero(a, steps[length]);
    } else {
      std::fill(a, a + values_, T(0));
    }
    for (std::int64_t segment = segments_ - 1; segment >= 0; --segment) {
      if (segment < segments_ - 1) {
        copy(checkpoints + segment * values_, y);
        steps[0] = checkpoint_steps[segment];
        length = run(segment, y, steps);
      }
      for (std::int64_t i = length - 1; i >= 0; --i)
        flow_.retreat(c, a, y + (i + 1) * values_, steps[i + 1], y + i * values_, steps[i], sums);
    }
    flow_.arrive(a, y, steps[0], sums);
    scatter(a, rows, ds_out, relaxation_.negate);
  }

 private:
  static std::int64_t stride(std::int64_t exact, std::int64_t values) {
    if (exact == 0) return 0;
    const auto all = static_cast<std::size_t>(exact + 1) * static_cast<std::size_t>(values) * sizeof(T);
    if (all <= static_cast<std::size_t>(history_bytes)) return exact;
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::sqrt(static_cast<double>(exact))));
  }

  std::int64_t length_of(std::int64_t segment) const { return std::min(stride_, exact_ - segment * stride_); }

  std::int64_t run(std::int64_t segment, T* y, Step<T>* steps) const {
    const std::int64_t length = length_of(segment);
    for (std::int64_t i = 0; i < length; ++i)
      flow_.advance(y + i * values_, steps[i], y + (i + 1) * values_, steps[i + 1], nullptr);
    return length;
  }

  void copy(const T* from, T* to) const { std::memcpy(to, from, static_cast<std::size_t>(values_) * sizeof(T)); }

  template <class S>
  void gather(const S* from, int rows, T* to, T padding, bool negate) const {
    const T sign = negate ? T(-1) : T(1);
    const std::int64_t n = relaxation_.patches;
    if constexpr (InLanes) {
      for (std::int64_t i = 0; i < n; ++i)
        for (int r = 0; r < lanes<T>; ++r)
          to[i * lanes<T> + r] = r < rows ? sign * static_cast<T>(from[r * n + i]) : padding;
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i] = sign * static_cast<T>(from[i]);
      std::fill(to + n, to + values_, padding);
    }
  }

  template <class S>
  void scatter(const T* from, int rows, S* to, bool negate) const {
    const T sign = negate ? T(-1) : T(1);
    const std::int64_t n = relaxation_.patches;
    for (int r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < n; ++i) to[r * n + i] = static_cast<S>(sign * from[F::L::at(i, r)]);
  }

  Relaxation relaxation_;
  F flow_;
  std::int64_t values_, exact_, stride_, segments_;
};

enum Route { automatic, lanes_float, row_float, lanes_double, row_double, node_compression };

// All n steps of one long row by node compression, or at full width in double where that would not be exact.
class Nodes {
 public:
  explicit Nodes(const Relaxation& r) : relaxation_(r) {}

  void forward(const float* scores, int, float* h) const {
    Scratch scratch(CompressedRow::bytes(relaxation_.patches));
    CompressedRow row;
    if (compress(row, scores, scratch)) {
      alignas(64) double k[CompressedRow::most_slots];
      if (NodeFlow(row, relaxation_.tau).run(relaxation_.chosen, k, nullptr)) return row.spread_values(k, h);
    }
    Rows<double, false>(relaxation_).forward(scores, 1, h);
  }

  void backward(const float* upstream, const float* scores, int, float* ds) const {
    Scratch scratch(CompressedRow::bytes(relaxation_.patches));
    CompressedRow row;
    if (compress(row, scores, scratch)) {
      const std::int64_t steps = relaxation_.chosen;
      Scratch saved(Scratch::bytes<double>(steps * row.slots()));
      auto* history = saved.take<double>(steps * row.slots());
      alignas(64) double k[CompressedRow::most_slots], gamma[CompressedRow::most_slots];
      alignas(64) double lambda[CompressedRow::most_slots], dweight[CompressedRow::most_slots];
      NodeFlow flow(row, relaxation_.tau);
      if (flow.run(steps, k, history)) {
        row.gather_all(upstream, gamma);
        flow.run_back(steps, gamma, history, lambda, dweight);
        const double scale = relaxation_.negate ? -relaxation_.tau : relaxation_.tau;
        return row.spread_slopes(upstream, k, dweight, lambda, scale, ds);
      }
    }
    Rows<double, false>(relaxation_).backward(upstream, scores, 1, ds);
  }

 private:
  bool compress(CompressedRow& row, const float* scores, Scratch& scratch) const {
    return relaxation_.patches > CompressedRow::head &&
           row.compress(scores, relaxation_.patches, relaxation_.tau, relaxation_.negate, scratch);
  }

  Relaxation relaxation_;
};

// Rows to handle at once: the lanes of the type that short rows are computed in, else 1.
template <class S>
int rows_per_block(std::int64_t patches) {
  return patches <= longest_in_lanes ? lanes<S> : 1;
}

template <class S>
Route choose_route(const Relaxation& r, const S* scores, int rows) {
  if (r.route != automatic) return static_cast<Route>(r.route);
  const bool fill_lanes = rows > 1 && r.patches <= longest_in_lanes;
  if (sizeof(S) == 8) return fill_lanes ? lanes_double : row_double;
  double widest = 0;
  for (int row = 0; row < rows; ++row) {
    const Extent<S> finite(scores + row * r.patches, r.patches);
    widest = std::max(widest, double(finite.high) - double(finite.low));  // of nothing finite: -infinity
  }
  // A float weight must not underflow, nor must what is left when the best patch is used up: e^(-range/tau^2) at tau < 1.
  const bool wide = widest / r.tau * std::max(1.0, 1 / r.tau) > 60;
  if (r.patches < shortest_in_float) return fill_lanes ? lanes_double : row_double;
  if (fill_lanes) return wide ? lanes_double : lanes_float;
  if (r.exact() > most_steps_in_float && r.tail() == 0 && r.patches >= fewest_patches_for_nodes) return node_compression;
  return wide || r.exact() > most_steps_in_float ? row_double : row_float;
}

// Calls body(kernel, first row, rows) for each group of rows with the kernel of its route.
template <class S, class Body>
void for_routes(const Relaxation& r, const S* scores, std::int64_t rows, Body body) {
  const int block = rows_per_block<S>(r.patches);
  for (std::int64_t first = 0; first < rows; first += block) {
    const std::int64_t stop = std::min(rows, first + block);
    const auto each = [&](auto kernel, int step) {
      for (std::int64_t row = first; row < stop; row += step)
        body(kernel, row, static_cast<int>(std::min<std::int64_t>(step, stop - row)));
    };
    const Route route = choose_route(r, scores + first * r.patches, static_cast<int>(stop - first));
    if constexpr (sizeof(S) == 4) {
      if (route == lanes_float) each(Rows<float, true>(r), lanes<float>);
      if (route == row_float) each(Rows<float, false>(r), 1);
      if (route == node_compression) each(Nodes(r), 1);
    }
    if (route == lanes_double) each(Rows<double, true>(r), lanes<double>);
    if (route == row_double) each(Rows<double, false>(r), 1);
  }
}

// (rows, N) scores to h (rows, N).
template <class S>
void relax_forward(const Relaxation& r, const S* scores, std::int64_t rows, S* h) {
  if (r.chosen == 0 || r.patches == 0) {
    std::fill(h, h + rows * r.patches, S(0));
    return;
  }
  for_routes(r, scores, rows, [&](const auto& kernel, std::int64_t row, int count) {
    kernel.forward(scores + row * r.patches, count, h + row * r.patches);
  });
}

// (rows, N) upstream gradients c = dL/dh and scores to ds = J(h)^T c (rows, N).
template <class S>
void relax_backward(const Relaxation& r, const S* upstream, const S* scores, std::int64_t rows, S* ds) {
  if (r.chosen == 0 || r.patches == 0) {
    std::fill(ds, ds + rows * r.patches, S(0));
    return;
  }
  for_routes(r, scores, rows, [&](const auto& kernel, std::int64_t row, int count) {
    kernel.backward(upstream + row * r.patches, scores + row * r.patches, count, ds + row * r.patches);
  });
}

}  // namespace pare::PARE_ISA
