// The hard choice: which patches are the n best of a row, in ascending order, and how two choices are paired.
//
// Scores become integers of the same order; bisection on them finds the n-th largest, with no sort and no data-dependent
// branch. Equal scores: the lower index ranks higher. NaN ranks below everything, -inf included.
#pragma once

#include "core/simd.h"

namespace pare::PARE_ISA {

template <class T>
using Key = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// Unsigned keys in the order of `scores` (of their negatives with `negate`); 0 is NaN. -0 counts as 0.
template <class T>
void order_keys(const T* scores, std::int64_t count, bool negate, Key<T>* __restrict keys) {
  constexpr int sign = sizeof(T) * 8 - 1;
  const T factor = negate ? T(-1) : T(1);
  for (std::int64_t i = 0; i < count; ++i) {
    const T score = factor * scores[i] + T(0);
    const Key<T> bits = bit_cast<Key<T>>(score);
    const Key<T> negative = Key<T>{0} - (bits >> sign);  // all ones for negative scores
    const Key<T> key = bits ^ (negative | (Key<T>{1} << sign));
    keys[i] = score == score ? key : 0;
  }
}

// How many of `count` keys are >= bound.
template <class K>
std::int64_t count_at_least(const K* keys, std::int64_t count, K bound) {
  constexpr std::int64_t chunk = std::int64_t{1} << 30;  // a lane of 32 bits cannot overflow
  std::int64_t total = 0;
  for (std::int64_t start = 0; start < count; start += chunk) {
    const std::int64_t stop = std::min(count, start + chunk);
    K n = 0;
    for (std::int64_t i = start; i < stop; ++i) n += keys[i] >= bound ? 1 : 0;
    total += static_cast<std::int64_t>(n);
  }
  return total;
}

// The n-th largest of `count` keys, 1 <= n <= count. `room` holds `count` keys.
//
// Bisection between the smallest and the largest key. Once few keys lie between the bounds they are gathered, and only
// they are counted further.
template <class K>
K nth_largest(const K* keys, std::int64_t count, std::int64_t n, K* room) {
  K low = ~K{0}, high = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    low = std::min(low, keys[i]);
    high = std::max(high, keys[i]);
  }
  std::int64_t at_least_low = count, above_high = 0;  // at_least_low >= n > above_high
  const K* pool = keys;
  std::int64_t pool_size = count, dropped_above = 0;
  while (low < high) {
    if (pool_size > 128 && (at_least_low - above_high) * 4 <= pool_size) {
      std::int64_t kept = 0;
      for (std::int64_t i = 0; i < pool_size; ++i) {
        const K key = pool[i];
        room[kept] = key;  // kept <= i: right even when the pool is the room
        kept += (key >= low) & (key <= high);
      }
      pool = room;
      pool_size = kept;
      dropped_above = above_high;
    }
    const K middle = low + (high - low) / 2 + 1;
    const std::int64_t at_least = dropped_above + count_at_least(pool, pool_size, middle);
    if (at_least >= n) {
      low = middle;
      at_least_low = at_least;
    } else {
      high = middle - 1;
      above_high = at_least;
    }
  }
  return low;
}

// Splits the indices 0 .. count-1 of the keys into the n best (`chosen`, ascending) and the others (`rest`, ascending); either may
// be null. The buffers hold one index more than they receive. `room` holds `count` keys.
template <class K>
void split(const K* keys, std::int64_t count, std::int64_t n, std::int64_t* chosen, std::int64_t* rest, K* room) {
  if (count == 0) return;
  std::int64_t c = 0, r = 0;
  const auto put = [&](std::int64_t i, bool take) {
    if (chosen) chosen[c] = i;
    if (rest) rest[r] = i;
    c += take;
    r += !take;
  };
  if (n == 0) {
    for (std::int64_t i = 0; i < count; ++i) put(i, false);
    return;
  }
  const K threshold = nth_largest(keys, count, n, room);
  if (count_at_least(keys, count, threshold) == n) {  // nearly always: no two keys at the threshold, so nothing to count
    for (std::int64_t i = 0; i < count; ++i) put(i, keys[i] >= threshold);
    return;
  }
  // How many keys equal to the threshold are chosen.
  std::int64_t ties = n - (threshold == ~K{0} ? 0 : count_at_least(keys, count, static_cast<K>(threshold + 1)));
  for (std::int64_t i = 0; i < count; ++i) {
    const bool equal = keys[i] == threshold;
    put(i, (keys[i] > threshold) | (equal & (ties > 0)));
    ties -= equal;
  }
}

// Orders `count` indices by key: descending with `best_first` (equal keys: lower index first), else exactly the reverse.
template <class K>
void order_by_key(const K* keys, std::int64_t* indices, std::int64_t count, bool best_first) {
  const auto better = [keys](std::int64_t a, std::int64_t b) {
    return keys[a] != keys[b] ? keys[a] > keys[b] : a < b;
  };
  if (best_first) {
    std::sort(indices, indices + count, better);
  } else {
    std::sort(indices, indices + count, [better](std::int64_t a, std::int64_t b) { return better(b, a); });
  }
}

template <class T>
struct PairingScratch {
  static std::size_t bytes(std::int64_t targets, std::int64_t sources) {
    const std::int64_t most = std::max(targets, sources);
    return 2 * Scratch::bytes<Key<T>>(most) + 2 * Scratch::bytes<std::int64_t>(most + 1);
  }
};

// The k target slots that give way, ascending, and the source patch that goes into each, from the (targets,) and (sources,)
// scores of one sample.
//
// The targets - k best targets stay (of the negated scores with `highest`), the k best sources come. By position: both
// ascending. By score: the slots from the lowest score up take the sources from the best down.
template <class T>
void choose(const T* target_scores, std::int64_t targets, const T* source_scores, std::int64_t sources, std::int64_t k,
            bool highest, bool by_score, std::int64_t* target_index, std::int64_t* source_index) {
  if (k == 0) return;
  Scratch scratch(PairingScratch<T>::bytes(targets, sources));
  const std::int64_t most = std::max(targets, sources);
  auto* keys = scratch.take<Key<T>>(most);
  auto* room = scratch.take<Key<T>>(most);
  auto* slots = scratch.take<std::int64_t>(most + 1);
  auto* patches = scratch.take<std::int64_t>(most + 1);

  order_keys(source_scores, sources, false, keys);
  split<Key<T>>(keys, sources, k, patches, nullptr, room);
  if (by_score) order_by_key(keys, patches, k, true);

  order_keys(target_scores, targets, highest, keys);
  split<Key<T>>(keys, targets, targets - k, nullptr, slots, room);
  std::memcpy(target_index, slots, sizeof(std::int64_t) * static_cast<std::size_t>(k));
  if (!by_score) {
    std::memcpy(source_index, patches, sizeof(std::int64_t) * static_cast<std::size_t>(k));
    return;
  }
  if (highest) order_keys(target_scores, targets, false, keys);
  order_by_key(keys, slots, k, false);
  // `rank` of a slot among the ascending ones is found again by binary search: both lists hold the same k slots.
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int64_t position = std::lower_bound(target_index, target_index + k, slots[j]) - target_index;
    source_index[position] = patches[j];
  }
}

}  // namespace pare::PARE_ISA
