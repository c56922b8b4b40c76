// The closed-form tail: tail_j = tau log(1 + T p_j / tau) with T such that the tail of a row sums to `remaining`.
//
// Newton's method on x = log T, where the sum is convex, sharpened by the second derivative; from the lower bound that
// Jensen's inequality gives. Logarithms are taken of products of many 1 + a, not of each. A row whose T leaves the range of T
// (one patch dominates, many steps remain) is solved again by itself in the log domain, in double.
#pragma once

#include "core/flow.h"

namespace pare::PARE_ISA {

PARE_INLINE double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
PARE_INLINE double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

template <class T, bool InLanes>
class Tail {
 public:
  using V = Vec<T>;
  using L = Layout<T, InLanes>;

  Tail(const Flow<T, InLanes>& flow, const T* y, const Step<T>& step, double remaining)
      : flow_(flow), y_(y), step_(step), remaining_(remaining) {
    solve();
  }

  // h += tail; `Layout::values()` numbers, like y, c and a.
  void add_to(T* h) const {
    const V factor = load(factor_);
    const V tau = broadcast<T>(static_cast<T>(flow_.tau()));
    flow_.for_vectors([&](std::int64_t i) { store(h + i, fma(tau, log1p<T>(load(y_ + i) * factor), load(h + i))); });
    for_log_domain([&](std::int64_t at, double log_a) { h[at] += static_cast<T>(flow_.tau() * softplus(log_a)); });
  }

  // A_{m+1} = tau q (c - <q, c> / <q, 1>), the gradient with respect to log p.
  void adjoint(const T* c, T* a) const {
    const V factor = load(factor_);
    flow_.for_vectors([&](std::int64_t i) {
      const V x = load(y_ + i) * factor;
      store(a + i, x / (1 + x));
    });
    for_log_domain([&](std::int64_t at, double log_a) { a[at] = static_cast<T>(sigmoid(log_a)); });
    const V q_sum = L::total(flow_.sum_over([&](std::int64_t i) { return load(a + i); }));
    // From the c of the dominant patch, which may have all of the mean: A does not change where all c shift.
    V pivot{};
    for (int r = 0; r < L::rows; ++r) {
      if (step_.dominant[r] < 0) continue;
      const T value = c[L::at(step_.dominant[r], r)];
      if constexpr (InLanes) {
        pivot[r] = value;
      } else {
        pivot = broadcast<T>(value);
      }
    }
    // The mean, and once more of what it leaves: its rounding would be shared by all patches and add up along the row.
    V mean{};
    for (int pass = 0; pass < 2; ++pass) {
      const V left = flow_.sum_over([&](std::int64_t i) { return load(a + i) * (load(c + i) - pivot - mean); });
      mean += q_sum > 0 ? L::total(left) / q_sum : V{};
    }
    const V tau = broadcast<T>(static_cast<T>(flow_.tau()));
    flow_.for_vectors([&](std::int64_t i) { store(a + i, tau * load(a + i) * (load(c + i) - pivot - mean)); });
  }

 private:
  static constexpr int most_iterations = 40;

  struct Totals {
    V log_sum, q_sum, qq_sum;  // sums of log(1 + a), q = a / (1 + a), q^2
  };

  // `group` vectors may be multiplied up without overflow.
  Totals totals(V factor, int group) const {
    Totals t{};
    constexpr int chains = 4;
    V product[chains] = {}, q_sum[chains] = {}, qq_sum[chains] = {};  // product: the product of all 1 + a, less 1
    const std::int64_t values = flow_.layout().values();
    const auto take = [&](std::int64_t i, int chain) {
      const V a = load(y_ + i) * factor;
      product[chain] = fma(product[chain] + 1, a, product[chain]);
      const V q = a / (1 + a);
      q_sum[chain] += q;
      qq_sum[chain] = fma(q, q, qq_sum[chain]);
    };
    const auto flush = [&] {
      for (int chain = 0; chain < chains; ++chain) {
        t.log_sum += log1p<T>(product[chain]);
        product[chain] = V{};
      }
    };
    std::int64_t i = 0;
    int used = 0;
    for (; i + chains * lanes<T> <= values; i += chains * lanes<T>) {
      for (int chain = 0; chain < chains; ++chain) take(i + chain * lanes<T>, chain);
      if (++used == group) {
        flush();
        used = 0;
      }
    }
    flush();
    for (int chain = 0; i < values; i += lanes<T>) take(i, chain++);  // fewer than there are chains
    flush();
    t.q_sum = L::total((q_sum[0] + q_sum[1]) + (q_sum[2] + q_sum[3]));
    t.qq_sum = L::total((qq_sum[0] + qq_sum[1]) + (qq_sum[2] + qq_sum[3]));
    t.log_sum = L::total(t.log_sum);
    return t;
  }

  void solve() {
    const T tau = static_cast<T>(flow_.tau());
    const V scale = load(step_.scale);
    // T_0 <= T: the solution if all of the row's patches were equal.
    const double patches = static_cast<double>(flow_.layout().patches);
    const double lower = patches * flow_.tau() * std::expm1(remaining_ / (patches * flow_.tau()));
    const double range = sizeof(T) == 4 ? 1e30 : 1e250;
    if (!(lower * step_.largest_p / flow_.tau() < range)) return leave_all(scale);

    V t = broadcast<T>(static_cast<T>(lower));
    const T settled = sizeof(T) == 4 ? T(2e-3) : T(1e-5);
    bool in_range = true, converged = false;
    for (int iteration = 0; iteration < most_iterations && in_range && !converged; ++iteration) {
      const V factor = t * scale / tau;
      const double largest = double(hmax<T>(t)) * step_.largest_p / flow_.tau();
      in_range = largest < range;
      if (!in_range) break;
      const int group = std::max(1, std::min(64, static_cast<int>(std::log(range) / std::log1p(largest))));
      const Totals sums = totals(factor, group);
      const V newton = (static_cast<T>(remaining_) - tau * sums.log_sum) / (tau * sums.q_sum);
      // Third order near the solution; far below it, log(1 + newton), the step that cannot overshoot.
      const V halley = newton / (1 + newton * (1 - sums.qq_sum / sums.q_sum) * T(0.5));
      const V magnitude = newton < 0 ? -newton : newton;
      V move = magnitude < T(0.5) ? halley : (newton > 0 ? log1p<T>(newton) : newton);
      move = scale == 0 ? V{} : move;
      t *= exp_any(move);
      const V moved = move < 0 ? -move : move;
      converged = !any(!(moved <= settled));
    }
    store(factor_, static_cast<V>(scale == 0 ? V{} : t * scale / tau));
    if (converged) return;
    // Some row is out of range or slow: solve each by itself.
    leave_all(scale);
  }

  // The lower solution never needs more than a factor e^80 per move.
  PARE_INLINE static V exp_any(V x) { return exp<T>(vmin(x, broadcast<T>(T(80)))); }

  void leave_all(V scale) {
    store(factor_, V{});
    log_domain_ = true;
    for (int r = 0; r < L::rows; ++r) log_factor_[r] = scale[r] > 0 ? solve_in_log_domain(r) : -infinity;
  }

  // log(T p / tau) = x + log p - log tau; x by Newton with bisection as the guard.
  double solve_in_log_domain(int row) const {
    const double tau = flow_.tau();
    const auto excess = [&](double x, double& slope) {
      double sum = 0;
      slope = 0;
      visit(row, [&](std::int64_t, double log_p) {
        const double log_a = x + log_p - std::log(tau);
        sum += softplus(log_a);
        slope += sigmoid(log_a);
      });
      slope *= tau;
      return tau * sum - remaining_;
    };
    double slope;
    double low = std::log(remaining_), high = low + 1;  // excess(low) <= 0, since tau log(1 + T p / tau) <= T p
    while (excess(high, slope) < 0) {
      low = high;
      high += (high - std::log(remaining_)) + 1;
    }
    double x = high;
    for (int iteration = 0; iteration < 200; ++iteration) {
      const double value = excess(x, slope);
      (value > 0 ? high : low) = x;
      double next = x - value / slope;
      if (!(next > low && next < high)) next = 0.5 * (low + high);
      if (std::fabs(next - x) <= 1e-15 * std::max(1.0, std::fabs(x))) return next;
      x = next;
    }
    return x;
  }

  template <class Body>
  void visit(int row, Body body) const {
    for (std::int64_t patch = 0; patch < flow_.layout().patches; ++patch) {
      const std::int64_t at = L::at(patch, row);
      const double p = patch == step_.dominant[row] ? 1 - step_.rest[row] : double(y_[at]) * step_.scale[row];
      if (p > 0) body(at, std::log(p));
    }
  }

  template <class Body>
  void for_log_domain(Body body) const {
    if (!log_domain_) return;
    for (int r = 0; r < L::rows; ++r) {
      if (log_factor_[r] == -infinity) continue;
      visit(r, [&](std::int64_t at, double log_p) { body(at, log_factor_[r] + log_p - std::log(flow_.tau())); });
    }
  }

  static constexpr double infinity = std::numeric_limits<double>::infinity();

  const Flow<T, InLanes>& flow_;
  const T* y_;
  const Step<T>& step_;
  double remaining_;
  alignas(64) T factor_[lanes<T>];  // a = y * factor
  double log_factor_[lanes<T>];
  bool log_domain_ = false;
};

}  // namespace pare::PARE_ISA
