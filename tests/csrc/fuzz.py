"""The C++ core under random inputs, compiled with the address and undefined-behaviour sanitizers.

    python tests/csrc/fuzz.py --seconds 120

Random shapes, options and values (NaN, infinities, ties, signed zeros, huge and tiny numbers) go through every function of every
instruction set, and what must hold for any input is checked. Every case has its own seed, printed when it fails:
`--seed S --cases 1` runs it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.csrc.build import build_core, compiler, load_core, sanitizer_environment, sanitizer_runtime

SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, 1e38, -1e38)


def random_size(rng, most: int) -> int:
    """Small sizes, the neighbours of powers of two, and now and then a large one."""
    kind = rng.integers(3)
    if kind == 0:
        return int(rng.integers(1, 6))
    if kind == 1:
        return int(np.clip(2 ** rng.integers(0, 9) + rng.integers(-1, 2), 1, most))
    return int(rng.integers(1, most + 1))


def random_values(rng, shape, dtype) -> np.ndarray:
    values = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 2)
    if rng.random() < 0.3:
        values = np.round(values)  # ties
    if rng.random() < 0.4:
        values = np.where(rng.random(shape) < rng.random() ** 2, rng.choice(SPECIAL, shape), values)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def random_tokens(rng, shape, half: bool, dtype) -> np.ndarray:
    """Contiguous, sliced or expanded tokens; the bits of a half type with `half`."""
    if half:
        return rng.integers(0, 2**16, shape).astype(np.uint16)
    batch, patches, features = shape
    layout = rng.integers(3)
    if layout == 0:
        return random_values(rng, shape, dtype)
    if layout == 1:
        return random_values(rng, (patches, batch, features + 3), dtype).transpose(1, 0, 2)[:, :, 1 : features + 1]
    return np.broadcast_to(random_values(rng, (1, patches, features), dtype), shape)


def relax_case(core, isa: str, rng) -> None:
    rows, patches = int(rng.integers(1, 20)), random_size(rng, 700)
    dtype = rng.choice([np.float32, np.float64])
    scores = random_values(rng, (rows, patches), dtype)
    n = int(rng.integers(0, patches + 1))
    tau = float(10 ** rng.uniform(-1.3, 1))
    exact_steps = int(rng.choice([-1, 0, 1, 2, 8, 100]))
    negate = bool(rng.integers(2))
    fits_float = dtype == np.float32 and np.ptp(scores) < 30 * min(tau, tau**2)
    route = int(rng.integers(6)) if fits_float else 0
    arguments = {"negate": negate, "route": route}
    h = core.relax(isa, scores, n, tau, exact_steps, **arguments)
    upstream = rng.normal(size=scores.shape).astype(dtype)
    ds = core.relax(isa, scores, n, tau, exact_steps, upstream=upstream, **arguments)
    usable = (-scores if negate else scores) > -np.inf
    assert np.isfinite(h).all(), "h must be finite"
    # At small tau the steps swing tied patches to and fro, and the derivative of many steps may truly exceed a float.
    assert tau < 0.5 or np.isfinite(ds).all(), "ds must be finite"
    assert (h >= 0).all(), "h must not be negative"
    assert (h[~usable] == 0).all(), "excluded patches have no part in h"
    assert h.astype(np.float64).sum(-1).max(initial=0) <= n * (1 + 1e-4), "h must not sum to more than n"


def split_case(core, isa: str, rng) -> None:
    patches = random_size(rng, 3000)
    scores = random_values(rng, patches, rng.choice([np.float32, np.float64]))
    n = int(rng.integers(0, patches + 1))
    chosen, rest = core.split(isa, scores, n, bool(rng.integers(2)))
    assert len(chosen) == n, "n patches are chosen"
    assert sorted([*chosen, *rest]) == list(range(patches)), "every patch is chosen or left"
    assert list(chosen) == sorted(chosen), "indices ascend"


def noise_case(core, isa: str, rng) -> None:
    seed, row = (int(rng.integers(2**63)) for _ in range(2))
    noise = core.gumbel(isa, bool(rng.integers(2)), seed, int(rng.integers(2)), row, random_size(rng, 2000))
    assert np.isfinite(noise).all(), "noise is finite"


def replace_case(core, isa: str, rng) -> None:
    batch, features = int(rng.integers(1, 12)), random_size(rng, 70)
    targets, sources = random_size(rng, 300), random_size(rng, 300)
    k = int(rng.integers(0, min(targets, sources) + 1))
    half = str(rng.choice(["", "", "f16", "bf16"]))
    dtype = np.float32 if half else rng.choice([np.float32, np.float64])
    target, source, y = (
        random_tokens(rng, (batch, patches, features), bool(half), dtype) for patches in (targets, sources, targets)
    )
    weight = random_values(rng, features, dtype)
    selection = int(rng.integers(3))
    noise = (None, None)
    if selection != 1 and rng.random() < 0.3:
        noise = tuple(random_values(rng, (batch, patches), dtype) for patches in (targets, sources))
    seed = None if selection == 1 or noise[0] is not None else int(rng.integers(2**63))
    highest, by_score, streaming = (bool(rng.integers(2)) for _ in range(3))
    options = (half, weight, 0.5, seed, *noise, k, float(rng.choice([0.0, 1.0, 10.0])), selection, highest, by_score)
    forward = core.patch_replace(isa, target, source, *options, False, streaming)
    slots, patches = forward["target_index"], forward["source_index"]
    for b in range(batch):
        assert (np.diff(slots[b]) > 0).all(), "slots ascend"
        assert len(set(patches[b].tolist())) == k, "no source patch is used twice"
        mixed = target[b].copy()
        mixed[slots[b]] = source[b][patches[b]]
        assert forward["mixed"][b].tobytes() == mixed.tobytes(), "rows are copied bit for bit"
    after_target, after_source = target.copy(), source.copy()
    core.patch_replace(isa, after_target, after_source, *options, True, False)
    assert after_target.tobytes() == forward["mixed"].tobytes(), "an exchange makes the same target"

    needs = [bool(rng.integers(2)) for _ in range(3)]
    relax = selection != 2 and bool(rng.integers(2))
    backward = (float(10 ** rng.uniform(-1, 1)), int(rng.choice([-1, 0, 8])), highest, relax, *needs, streaming)
    core.patch_replace_backward(isa, y, None, target, source, half, weight, forward, *backward)
    core.patch_replace_backward(isa, y, after_source, after_target, after_source, half, weight, forward, *backward)
    core.gate_scores(isa, target, half, weight, -0.5)


CASES = (relax_case, split_case, noise_case, replace_case)


def fuzz(core, seed: int, seconds: float, cases: int | None) -> int:
    """How many cases ran. The seed of one that fails is printed before the error."""
    start, done = time.monotonic(), 0
    while done < cases if cases is not None else time.monotonic() - start < seconds:
        rng = np.random.default_rng(seed + done)
        case, isa = CASES[rng.integers(len(CASES))], str(rng.choice(core.instruction_sets()))
        print(f"\r{case.__name__} {isa} --seed {seed + done} --cases 1".ljust(70), end="", file=sys.stderr, flush=True)
        case(core, isa, rng)
        done += 1
    print(file=sys.stderr)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run (default: 60)")
    parser.add_argument("--cases", type=int, help="how many cases to run, instead of a time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first case (default: the clock)")
    arguments = parser.parse_args()
    if compiler() is None:
        sys.exit("a C++ compiler is needed")
    sanitized = sanitizer_runtime() is not None
    module = build_core(sanitize=sanitized)
    if sanitized and "libasan" not in os.environ.get("LD_PRELOAD", ""):
        os.execve(sys.executable, [sys.executable, *sys.argv], sanitizer_environment())
    if not sanitized:
        print("this compiler has no address sanitizer: running without", file=sys.stderr)
    done = fuzz(load_core(module), arguments.seed, arguments.seconds, arguments.cases)
    print(f"{done} cases, seeds {arguments.seed} to {arguments.seed + done - 1}: clean")


if __name__ == "__main__":
    main()
