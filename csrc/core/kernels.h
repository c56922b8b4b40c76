// The core's interface: plain pointers in, plain pointers out, one table of functions per instruction set.
//
// Shapes: B samples of a batch, N patches (Nt of the target, Ns of the source), D features. A row of scores has the N numbers of
// one sample, a row of tokens the D features of one patch. Strides count elements. Scores, noise and gate weights are in the
// accumulation type: double for double tokens, else float.
#pragma once

#include "core/common.h"

namespace pare {

// Tokens of one modality, (B, patches, D), any strides.
struct Tokens {
  void* data;
  std::int64_t patches;
  std::int64_t sample_stride, row_stride, feature_stride;
};

enum class Selection { gumbel, topk, random };

// Independent noise of one seed.
constexpr std::uint32_t target_stream = 0, source_stream = 1;

struct GateScores {
  Type type;
  Tokens tokens;
  std::int64_t features;
  const void* weight;  // (D,)
  double bias;
  void* scores;  // (B, N)
};

struct GateScoresBackward {
  Type type;
  Tokens tokens;  // feature_stride 1
  std::int64_t features;
  const void* grad;    // (B, N)
  const void* scores;  // (B, N)
  const void* weight;  // (D,)
  void* dtokens;       // (B, N, D) or null
  bool need_weight;
  bool streaming;
};

// Where Gumbel noise comes from: given values, a seed, or nothing.
struct Noise {
  const void* given;  // (B, N) or null
  bool seeded;
  std::uint64_t seed;
  std::uint32_t stream;
  std::uint64_t first_row = 0;  // of the seed's rows, the one that the first sample of the batch has
};

struct GumbelTopK {
  bool is_double;
  std::int64_t patches, k;
  double tau, noise_scale;
  std::int64_t exact_steps;  // -1: all
  const void* scores;        // (B, N)
  Noise noise;
  std::int64_t* indices;  // (B, k) ascending
  void* mask;             // (B, N)
  void* relaxed;          // (B, N)
  void* noisy;            // (B, N)
};

// Relaxation of rows of scores: h, or J(h)^T upstream.
struct Relax {
  bool is_double;
  std::int64_t patches, chosen;
  double tau;
  std::int64_t exact_steps;
  bool negate = false;
  int route = 0;  // automatic
  const void* scores;    // (B, N)
  const void* upstream;  // (B, N), or null: h is wanted
  void* result;          // (B, N)
};

struct PatchReplace {
  Type type;
  std::int64_t features, k;
  Tokens target, source;
  void* mixed;         // (B, Nt, D) contiguous; null: exchange the rows in place
  const void* weight;  // (D,)
  double bias;
  Noise noise_target, noise_source;
  double noise_scale;
  Selection selection;
  bool highest, by_score;
  bool streaming;
  std::int64_t *target_index, *source_index;  // (B, k)
  void *gate_target, *gate_source;            // (B, Nt), (B, Ns); not written for Selection::random
  void *noisy_target, *noisy_source;          // (B, Nt), (B, Ns)
};

struct PatchReplaceBackward {
  Type type;
  std::int64_t features, k;
  Tokens grad;         // of mixed, or of the target buffer after an exchange
  Tokens grad_source;  // of the source buffer after an exchange; data null where there is none
  Tokens target, source;
  bool swapped;  // target and source are the buffers after an exchange
  const void* weight;                               // (D,)
  const void *gate_target, *gate_source;            // (B, Nt), (B, Ns)
  const void *noisy_target, *noisy_source;          // (B, Nt), (B, Ns)
  const std::int64_t *target_index, *source_index;  // (B, k)
  double tau;
  std::int64_t exact_steps;
  bool highest, relax, need_gate;
  bool streaming;
  void *dtarget, *dsource;  // (B, Nt, D), (B, Ns, D) contiguous, or null
};

// All functions handle samples first .. last-1 of the batch; backward passes add to `dweight` (D,) and `dbias`, in double.
struct Kernels {
  const char* name;
  void (*gate_scores)(const GateScores&, std::int64_t first, std::int64_t last);
  void (*gate_scores_backward)(const GateScoresBackward&, std::int64_t first, std::int64_t last, double* dweight,
                               double* dbias);
  void (*gumbel_topk)(const GumbelTopK&, std::int64_t first, std::int64_t last);
  void (*relax)(const Relax&, std::int64_t first, std::int64_t last);
  void (*patch_replace)(const PatchReplace&, std::int64_t first, std::int64_t last);
  void (*patch_replace_backward)(const PatchReplaceBackward&, std::int64_t first, std::int64_t last, double* dweight,
                                 double* dbias);
  // How many samples to hand to `relax`, `gumbel_topk` and `patch_replace_backward` at once.
  std::int64_t (*samples_per_task)(std::int64_t patches, bool is_double);
};

// The parts, for unit tests.
struct Parts {
  void (*philox)(std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::uint32_t first, int count,
                 std::uint32_t* words);
  void (*gumbel)(bool is_double, std::uint64_t seed, std::uint32_t stream, std::uint64_t row, std::int64_t patches,
                 void* noise);
  void (*exp)(bool is_double, const void* x, std::int64_t count, void* result);
  void (*log1p)(bool is_double, const void* x, std::int64_t count, void* result);
  void (*convert)(Type type, const void* x, std::int64_t count, void* as_float, void* back);
  void (*split)(bool is_double, const void* scores, std::int64_t patches, std::int64_t n, bool negate,
                std::int64_t* chosen, std::int64_t* rest);
};

struct InstructionSet {
  Kernels kernels;
  Parts parts;
};

// The sets compiled into this binary that this CPU can run, best first; `count` of them.
const InstructionSet* const* instruction_sets(int* count);

// The best one, or the one that the environment variable PARE_KERNELS_CPU names.
const Kernels& kernels();

}  // namespace pare
