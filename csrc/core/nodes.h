// The exact n-step relaxation of a long row at a cost that does not depend on its length.
//
// Every patch follows one map, w <- w (1 - w/W)^(1/tau), and sees the others through the sum W alone, so its whole path is a
// smooth function of its start u = s/tau. The 16 best patches are kept as they are; the others are carried by uniform nodes in
// u, with 6-point Lagrange weights c_j = sum_i L_j(u_i) and W = sum_j c_j w_j. In double: the answer of the full recursion to
// float rounding. Rows for which that does not hold (checked before and during the run) take the full width instead.
#pragma once

#include "core/flow.h"
#include "core/select.h"

namespace pare::PARE_ISA {

// Coefficients of the 6 Lagrange polynomials on the points -5/2, -3/2 .. 5/2: value = sum_q basis[point][q] t^q.
struct LagrangeBasis {
  static constexpr int points = 6;
  double coefficient[points][points] = {};

  constexpr LagrangeBasis() {
    for (int a = 0; a < points; ++a) {
      double polynomial[points] = {1};
      double denominator = 1;
      int degree = 0;
      for (int b = 0; b < points; ++b) {
        if (b == a) continue;
        const double root = b - 2.5;
        denominator *= a - b;
        for (int q = ++degree; q >= 1; --q) polynomial[q] = polynomial[q - 1] - root * polynomial[q];
        polynomial[0] *= -root;
      }
      for (int q = 0; q < points; ++q) coefficient[a][q] = polynomial[q] / denominator;
    }
  }
};

inline constexpr LagrangeBasis lagrange_basis{};

// One row, compressed.
class CompressedRow {
 public:
  static constexpr int head = 16;
  static constexpr int most_nodes = 128;
  static constexpr int most_slots = head + most_nodes;
  static constexpr int points = LagrangeBasis::points;
  static constexpr int row_of_cell = 8;  // doubles per cell, padded

  static std::size_t bytes(std::int64_t patches) {
    return Scratch::bytes<std::int32_t>(patches) + 2 * Scratch::bytes<float>(patches) +
           2 * Scratch::bytes<std::uint32_t>(patches) + Scratch::bytes<std::int64_t>(patches + 1);
  }

  // False where node compression would not be exact to float rounding.
  bool compress(const float* scores, std::int64_t patches, double tau, bool negate, Scratch& scratch) {
    patches_ = patches;
    cell_ = scratch.take<std::int32_t>(patches);  // these three are handled by whole vectors: there is room for them
    t_ = scratch.take<float>(patches);
    auto* body = scratch.take<float>(patches);
    auto* keys = scratch.take<std::uint32_t>(patches);
    auto* room = scratch.take<std::uint32_t>(patches);
    auto* best = scratch.take<std::int64_t>(patches + 1);
    order_keys(scores, patches, negate, keys);
    split<std::uint32_t>(keys, patches, head, best, nullptr, room);
    std::copy(best, best + head, head_patch_);

    const float sign = negate ? -1.0f : 1.0f;
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    double head_score[head];
    for (std::int64_t i = 0; i < patches; ++i) body[i] = sign * scores[i];
    for (std::int64_t i = patches; i % lanes<double> != 0; ++i) body[i] = nan;
    for (int j = 0; j < head; ++j) head_score[j] = std::exchange(body[head_patch_[j]], nan);
    const Extent<float> finite(body, patches);
    const double low = finite.low, high = finite.high;
    if (!(low <= high)) return false;
    double top = high;
    for (double s : head_score) {
      if (!(s >= high) || s == std::numeric_limits<double>::infinity()) return false;
      top = std::max(top, s);
    }
    const double range = (high - low) / tau;
    nodes_ = 0;
    for (int count : {64, 96, 128})
      if (nodes_ == 0 && range <= most_spacing * (count - points + 1)) nodes_ = count;
    if (nodes_ == 0 || (top - low) / tau > 60) return false;
    slots_ = head + nodes_;
    cells_ = nodes_ - points + 1;
    spacing_ = std::max(range / cells_, 1e-2);

    const double to_cells = 1 / (tau * spacing_);
    const VD last = broadcast<double>(cells_ - 1);
    for (std::int64_t i = 0; i < patches; i += lanes<double>) {
      VF32 s;
      std::memcpy(&s, body + i, sizeof(s));
      const VD position = (__builtin_convertvector(s, VD) - low) * to_cells;  // NaN and -inf stay what they are
      const VI32 cell = __builtin_convertvector(position > 0 ? vmin(position, last) : VD{}, VI32);
      const VF32 t = __builtin_convertvector(position - __builtin_convertvector(cell, VD) - 0.5, VF32);
      const VI32 stored = s > -std::numeric_limits<float>::infinity() ? cell : VI32{} + excluded;
      std::memcpy(cell_ + i, &stored, sizeof(stored));
      std::memcpy(t_ + i, &t, sizeof(t));
    }
    for (std::int64_t patch : head_patch_) cell_[patch] = in_head;
    for (int j = 0; j < head; ++j) start_[j] = std::exp((head_score[j] - top) / tau);
    for (int j = 0; j < nodes_; ++j) start_[head + j] = std::exp((low - top) / tau + (j - 2) * spacing_);
    for (int j = 0; j < head; ++j) weight_[j] = 1;
    gather_nodes(nullptr, weight_);

    // The nodes follow the body smoothly only while no patch of it carries much of it.
    double sum = 0;
    for (int j = head; j < slots_; ++j) sum += weight_[j] * start_[j];
    return std::exp((high - top) / tau) <= most_body_share * sum;
  }

  int slots() const { return slots_; }
  const double* start() const { return start_; }
  const double* weight() const { return weight_; }

  // (N,) g to (slots,) values: values_j = sum_i g_i L_j(u_i) (g null: 1) for the nodes, g itself for the head.
  void gather_all(const float* g, double* values) const {
    for (int j = 0; j < head; ++j) values[j] = g[head_patch_[j]];
    gather_nodes(g, values);
  }

  // (slots,) values to (N,) out: out_i = the interpolant at u_i; for the head the value itself; 0 for excluded patches.
  void spread_values(const double* values, float* out) const {
    alignas(64) double table[most_nodes * row_of_cell];
    coefficients(values, table, false);
    for (std::int64_t i = 0; i < patches_; ++i)
      out[i] = cell_[i] >= 0 ? static_cast<float>(evaluate(table + cell_[i] * row_of_cell, t_[i])) : 0.0f;
    for (int j = 0; j < head; ++j) out[head_patch_[j]] = static_cast<float>(values[j]);
  }

  // (N,) out_i = (g_i K'(u_i) + H'(u_i)) / scale, d/du of the interpolants of (slots,) values; for the head `direct` / scale.
  void spread_slopes(const float* g, const double* k_values, const double* h_values, const double* direct, double scale,
                     float* out) const {
    alignas(64) double k_table[most_nodes * row_of_cell];
    alignas(64) double h_table[most_nodes * row_of_cell];
    coefficients(k_values, k_table, true);
    coefficients(h_values, h_table, true);
    const double factor = 1 / (scale * spacing_);
    for (std::int64_t i = 0; i < patches_; ++i) {
      if (cell_[i] < 0) {
        out[i] = 0;
        continue;
      }
      const double k = evaluate(k_table + cell_[i] * row_of_cell, t_[i]);
      const double h = evaluate(h_table + cell_[i] * row_of_cell, t_[i]);
      out[i] = static_cast<float>((g[i] * k + h) * factor);
    }
    for (int j = 0; j < head; ++j) out[head_patch_[j]] = static_cast<float>(direct[j] / scale);
  }

 private:
  static constexpr std::int32_t in_head = -1, excluded = -2;
  static constexpr double most_spacing = 0.16;
  static constexpr double most_body_share = 0.1;

  // Powers of t of all patches, summed per cell, then turned into weights of the six nodes around each cell.
  void gather_nodes(const float* g, double* values) const {
    alignas(64) double moments[2][most_nodes * row_of_cell] = {};  // two copies: neighbours rarely wait for each other
    for (std::int64_t i = 0; i < patches_; ++i) {
      if (cell_[i] < 0) continue;
      double* moment = moments[i & 1] + cell_[i] * row_of_cell;
      const double t = t_[i], t2 = t * t;
      const double one = g ? double(g[i]) : 1.0;
      using V4 = double __attribute__((vector_size(32)));
      V4 first, second;
      std::memcpy(&first, moment, sizeof(first));
      std::memcpy(&second, moment + 4, sizeof(second));
      const double gt = one * t, t4 = t2 * t2;
      const V4 powers = {one, gt, one * t2, gt * t2};
      first += powers;
      second += powers * t4;
      std::memcpy(moment, &first, sizeof(first));
      std::memcpy(moment + 4, &second, sizeof(second));
    }
    std::fill(values + head, values + slots_, 0.0);
    for (int cell = 0; cell < cells_; ++cell) {
      for (int a = 0; a < points; ++a) {
        double sum = 0;
        for (int q = 0; q < points; ++q)
          sum += lagrange_basis.coefficient[a][q] *
                 (moments[0][cell * row_of_cell + q] + moments[1][cell * row_of_cell + q]);
        values[head + cell + a] += sum;
      }
    }
  }

  // Per cell the polynomial in t that interpolates `values`, or its derivative.
  void coefficients(const double* values, double* table, bool derivative) const {
    for (int cell = 0; cell < cells_; ++cell) {
      double c[points] = {};
      for (int a = 0; a < points; ++a)
        for (int q = 0; q < points; ++q) c[q] += values[head + cell + a] * lagrange_basis.coefficient[a][q];
      double* row = table + cell * row_of_cell;
      for (int q = 0; q < points; ++q) row[q] = derivative ? (q + 1 < points ? (q + 1) * c[q + 1] : 0.0) : c[q];
    }
  }

  PARE_INLINE static double evaluate(const double* c, double t) {
    const double t2 = t * t;
    return (c[0] + c[1] * t) + t2 * ((c[2] + c[3] * t) + t2 * (c[4] + c[5] * t));
  }

  std::int64_t patches_ = 0;
  std::int32_t* cell_ = nullptr;
  float* t_ = nullptr;
  std::int64_t head_patch_[head] = {};
  int nodes_ = 0, slots_ = 0, cells_ = 0;
  double spacing_ = 0;
  alignas(64) double start_[most_slots];
  alignas(64) double weight_[most_slots];
};

// The recursion on the slots of a compressed row.
class NodeFlow {
 public:
  static constexpr double most_p = 1 - 1e-7;  // beyond it 1 - p has too few digits left

  NodeFlow(const CompressedRow& row, double tau)
      : slots_(row.slots()), weight_(row.weight()), inverse_tau_(1 / tau), tau_(tau) {
    std::copy(row.start(), row.start() + slots_, y_);
    double binomial = inverse_tau_;
    for (int j = 0; j < terms; ++j) {
      coefficient_[j] = binomial;
      binomial *= -(inverse_tau_ - (j + 1)) / (j + 2);
    }
    for (int d = 1; d < terms; ++d) {
      double largest = 0;
      for (int j = d; j < terms; ++j) largest = std::max(largest, std::fabs(coefficient_[j]));
      // Not p^(d+1): the error of one step is repeated about tau / p times.
      limit_[d] = largest == 0 ? 0.2 : std::min(0.2, std::pow(1e-8 / largest, 1.0 / d));
    }
  }

  // `steps` steps; k[slot] = the sum of p over them. With a history, p of each step goes there, `slots` doubles a step.
  // False if a patch came too close to p = 1.
  bool run(std::int64_t steps, double* k, double* history) {
    std::fill(k, k + slots_, 0.0);
    double sum = 0;
    for (int j = 0; j < slots_; ++j) sum += weight_[j] * y_[j];
    std::int64_t i = 0;
    while (i < steps) {
      const double p = largest() / sum;
      if (!(p <= most_p)) return false;
      double* saved = history ? history + i * slots_ : nullptr;
      // Once the largest p is below tau / (1 + tau) the order of the patches is fixed and the largest only falls, so a series
      // that is long enough now stays so.
      const bool falls = p < tau_ / (1 + tau_);
      if (falls && p <= small_p && small_from_ > i) small_from_ = i;
      const std::int64_t length = falls ? std::min<std::int64_t>(32, steps - i) : 1;
      if (falls && p <= limit_[2]) {
        sum = chunk<2>(length, sum, k, saved);
      } else if (falls && p <= limit_[3]) {
        sum = chunk<3>(length, sum, k, saved);
      } else if (falls && p <= limit_[4]) {
        sum = chunk<4>(length, sum, k, saved);
      } else if (falls && p <= limit_[6]) {
        sum = chunk<6>(length, sum, k, saved);
      } else {
        sum = exact_step(sum, k, saved);
        i += 1;
        continue;
      }
      i += length;
    }
    return true;
  }

  // After `run` with a history (steps, slots): from gamma = dL/dk back through the saved steps to lambda = dL/d(log start), and
  // dweight = dL/dweight, (slots,) each.
  void run_back(std::int64_t steps, const double* gamma, const double* history, double* lambda, double* dweight) const {
    std::fill(lambda, lambda + slots_, 0.0);
    std::fill(dweight, dweight + slots_, 0.0);
    double s = 0;
    for (std::int64_t i = steps - 1; i >= 0; --i) {
      const double* p = history + i * slots_;
      const double* later = i + 1 < steps ? p + slots_ : p;  // with s = 0 at first
      s = i >= small_from_ ? back_step<true>(p, later, gamma, s, lambda, dweight)
                           : back_step<false>(p, later, gamma, s, lambda, dweight);
    }
    for (int j = 0; j < slots_; ++j) {
      lambda[j] -= weight_[j] * history[j] * s;
      dweight[j] -= history[j] * s;
    }
  }

 private:
  static constexpr int terms = 12;
  static constexpr double small_p = 1e-2;

  double largest() const { return *std::max_element(y_, y_ + slots_); }

  template <int Terms>
  double chunk(std::int64_t length, double sum, double* k, double* saved) {
    VD coefficient[Terms];
    for (int j = 0; j < Terms; ++j) coefficient[j] = broadcast<double>(coefficient_[j]);
    for (std::int64_t i = 0; i < length; ++i) {
      const VD scale = broadcast<double>(1 / sum);
      VD sums[2] = {};
      const auto at = [&](int j, VD& partial) {
        const VD p = load(y_ + j) * scale;
        VD delta = coefficient[Terms - 1];
        for (int q = Terms - 2; q >= 0; --q) delta = fma(delta, p, coefficient[q]);
        const VD y = fma(-(p * p), delta, p);
        store(y_ + j, y);
        store(k + j, load(k + j) + p);
        if (saved) store(saved + j, p);
        partial = fma(load(weight_ + j), y, partial);
      };
      for (int j = 0; j < slots_; j += 2 * lanes<double>) {
        at(j, sums[0]);
        at(j + lanes<double>, sums[1]);
      }
      sum = hsum<double>(sums[0] + sums[1]);
      if (saved) saved += slots_;
    }
    return sum;
  }

  double exact_step(double sum, double* k, double* saved) {
    double next = 0;
    for (int j = 0; j < slots_; ++j) {
      const double p = y_[j] / sum;
      double delta;
      if (p <= limit_[terms - 1]) {
        delta = coefficient_[terms - 1];
        for (int q = terms - 2; q >= 0; --q) delta = delta * p + coefficient_[q];
        delta *= p;
        y_[j] = p - p * delta;
      } else {
        y_[j] = p * std::exp(std::log1p(-p) * inverse_tau_);
      }
      k[j] += p;
      if (saved) saved[j] = p;
      next += weight_[j] * y_[j];
    }
    return next;
  }

  template <bool Small>
  double back_step(const double* p, const double* later, const double* gamma, double s, double* lambda,
                   double* dweight) const {
    const VD later_s = broadcast<double>(s);
    const VD minus_inverse_tau = broadcast<double>(-inverse_tau_);
    VD sums[2] = {};
    const auto at = [&](int j, VD& partial) {
      const VD x = load(p + j);
      const VD q = load(later + j) * later_s;
      VD l = fma(-load(weight_ + j), q, load(lambda + j));
      store(dweight + j, load(dweight + j) - q);
      // 1 / (1 - x): the product leaves out x^4 and beyond, 1e-8 at most
      const VD inverse = Small ? (1 + x) * fma(x, x, broadcast<double>(1)) : 1 / (1 - x);
      const VD d = fma(l * minus_inverse_tau, inverse, load(gamma + j));
      const VD e = x * d;
      store(lambda + j, l + e);
      partial += e;
    };
    for (int j = 0; j < slots_; j += 2 * lanes<double>) {
      at(j, sums[0]);
      at(j + lanes<double>, sums[1]);
    }
    return hsum<double>(sums[0] + sums[1]);
  }

  int slots_;
  const double* weight_;
  double inverse_tau_, tau_;
  std::int64_t small_from_ = std::numeric_limits<std::int64_t>::max();  // p <= small_p from this step on
  double coefficient_[terms];
  double limit_[terms] = {};
  alignas(64) double y_[CompressedRow::most_slots];
};

}  // namespace pare::PARE_ISA
