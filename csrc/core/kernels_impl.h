// The table of one instruction set. Included once per set, by kernels_<set>.cpp.
#pragma once

#include "core/patches.h"

namespace pare::PARE_ISA {
namespace {

template <class Body>
void for_type(Type type, Body body) {
  switch (type) {
    case Type::f32: return body(float{});
    case Type::f64: return body(double{});
    case Type::bf16: return body(bf16{});
    case Type::f16: return body(f16{});
  }
}

void gate_scores_table(const GateScores& p, std::int64_t first, std::int64_t last) {
  for_type(p.type, [&](auto token) {
    using Token = decltype(token);
    using T = Acc<Token>;
    for (std::int64_t sample = first; sample < last; ++sample)
      score_sample<Token>(p.tokens, sample, p.features, static_cast<const T*>(p.weight), static_cast<T>(p.bias),
                        static_cast<T*>(p.scores) + sample * p.tokens.patches);
  });
}

void gate_scores_backward_table(const GateScoresBackward& p, std::int64_t first, std::int64_t last, double* dweight,
                                double* dbias) {
  for_type(p.type, [&](auto token) { gate_scores_backward_samples<decltype(token)>(p, first, last, dweight, dbias); });
}

void gumbel_topk_table(const GumbelTopK& p, std::int64_t first, std::int64_t last) {
  p.is_double ? gumbel_topk_samples<double>(p, first, last) : gumbel_topk_samples<float>(p, first, last);
}

void relax_table(const Relax& p, std::int64_t first, std::int64_t last) {
  p.is_double ? relax_samples<double>(p, first, last) : relax_samples<float>(p, first, last);
}

void patch_replace_table(const PatchReplace& p, std::int64_t first, std::int64_t last) {
  for_type(p.type, [&](auto token) { patch_replace_samples<decltype(token)>(p, first, last); });
}

void patch_replace_backward_table(const PatchReplaceBackward& p, std::int64_t first, std::int64_t last,
                                  double* dweight, double* dbias) {
  for_type(p.type, [&](auto token) { PatchReplaceGradient<decltype(token)>(p, first, last).run(dweight, dbias); });
}

std::int64_t samples_per_task(std::int64_t patches, bool is_double) {
  return is_double ? rows_per_block<double>(patches) : rows_per_block<float>(patches);
}

template <class Function>
void for_acc(bool is_double, Function function) {
  is_double ? function(double{}) : function(float{});
}

// Vector functions on arrays of any length, for the unit tests.
template <class T, class Function>
void map(const void* x, std::int64_t count, void* result, Function function) {
  for (std::int64_t i = 0; i < count; i += lanes<T>) {
    const Vec<T> y = function(load_part(static_cast<const T*>(x) + i, count - i, T(0)));
    store_part(static_cast<T*>(result) + i, y, count - i);
  }
}

void gumbel_part(bool is_double, std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::int64_t patches,
                 void* noise) {
  for_acc(is_double, [&](auto zero) {
    using T = decltype(zero);
    gumbel_row<T>(seed, stream, row, patches, static_cast<T*>(noise));
  });
}

void exp_part(bool is_double, const void* x, std::int64_t count, void* result) {
  for_acc(is_double, [&](auto zero) {
    using T = decltype(zero);
    map<T>(x, count, result, [](Vec<T> v) { return exp<T>(v); });
  });
}

void log1p_part(bool is_double, const void* x, std::int64_t count, void* result) {
  for_acc(is_double, [&](auto zero) {
    using T = decltype(zero);
    map<T>(x, count, result, [](Vec<T> v) { return log1p<T>(v); });
  });
}

// Both the vector and the scalar path: all but the last token go through vectors where they fill one.
void convert_part(Type type, const void* x, std::int64_t count, void* as_acc, void* back) {
  for_type(type, [&](auto token) {
    using Token = decltype(token);
    using T = Acc<Token>;
    const auto* from = static_cast<const Token*>(x);
    auto* acc = static_cast<T*>(as_acc);
    auto* to = static_cast<Token*>(back);
    std::int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) {
      const Vec<T> v = load_acc(from + i);
      store(acc + i, v);
      store_acc(to + i, v);
    }
    for (; i < count; ++i) {
      acc[i] = to_acc(from[i]);
      from_acc(to + i, acc[i]);
    }
  });
}

void split_part(bool is_double, const void* scores, std::int64_t patches, std::int64_t n, bool negate,
                std::int64_t* chosen, std::int64_t* rest) {
  for_acc(is_double, [&](auto zero) {
    using T = decltype(zero);
    Scratch scratch(2 * Scratch::bytes<Key<T>>(patches));
    auto* keys = scratch.take<Key<T>>(patches);
    auto* room = scratch.take<Key<T>>(patches);
    order_keys(static_cast<const T*>(scores), patches, negate, keys);
    split<Key<T>>(keys, patches, n, chosen, rest, room);
  });
}

}  // namespace

extern const InstructionSet table;
const InstructionSet table{
    {PARE_STRING(PARE_ISA), gate_scores_table, gate_scores_backward_table, gumbel_topk_table, relax_table,
     patch_replace_table, patch_replace_backward_table, samples_per_task},
    {philox_words, gumbel_part, exp_part, log1p_part, convert_part, split_part},
};

}  // namespace pare::PARE_ISA
