"""Argument checks: each error names the argument, what it was and what was expected, before any kernel starts."""

from __future__ import annotations

import functools
import math
import numbers
import operator
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import torch
from torch import Tensor

SELECTIONS = ("gumbel", "topk", "random")
GUMBEL, TOPK, RANDOM = range(len(SELECTIONS))  # as the operators take them
REPLACE = ("lowest", "highest")
PAIRINGS = ("position", "score")
TOKEN_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

LEAST_TAU = 1e-6  # below, one score decides alone long before; from about 1e-27 down 1 / tau overflows in what follows
ALL_EXACT = -1  # how `exact_steps=None` reaches the operators, whose schemas take an int


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of scores and of everything summed: float64 for float64 tokens, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_floating(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype not in TOKEN_DTYPES:
        raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {tensor.layout}")


def check_tokens(name: str, tokens: Tensor) -> None:
    check_floating(name, tokens)
    if tokens.is_nested:
        raise TypeError(f"{name} must be a dense (strided) tensor, got a nested tensor")
    if tokens.ndim != 3:
        raise ValueError(f"{name} must have shape (batch, patches, features), got shape {tuple(tokens.shape)}")


def wrong_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> ValueError:
    return ValueError(f"{name} must be on {other.device} like {other_name}, but is on {tensor.device}")


def check_gate(weight: Tensor, bias: Tensor | None, tokens_name: str, tokens: Tensor) -> None:
    check_floating("gate_weight", weight)
    features, shape = tokens.shape[-1], weight.shape
    if shape != (features,) and shape != (1, features):
        raise ValueError(
            f"gate_weight must have shape ({features},) or (1, {features}) for {tokens_name} with {features} features, "
            f"got {tuple(shape)}"
        )
    device = tokens.device
    if weight.device != device:
        raise wrong_device("gate_weight", weight, tokens_name, tokens)
    if bias is None:
        return
    check_floating("gate_bias", bias)
    if bias.ndim > 1 or bias.numel() != 1:
        raise ValueError(f"gate_bias must be one number, of shape () or (1,), got shape {tuple(bias.shape)}")
    if bias.device != device:
        raise wrong_device("gate_bias", bias, tokens_name, tokens)


def as_int(value: Any) -> int | None:
    """The int that `value` is or stands for (an integer of NumPy, say), None where it is none; bools are none."""
    if isinstance(value, (int, torch.SymInt)):  # in a traced graph a number may be a symbol, and stays one
        return None if isinstance(value, bool) else value  # type: ignore[return-value]
    if "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_number(name: str, value: float, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymInt, torch.SymFloat, numbers.Real)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not least <= value < math.inf:  # NaN neither
        raise ValueError("{} must be finite and >= {:g}, got {}".format(name, least, value))  # noqa: UP032 (traced graphs)
    return value if isinstance(value, torch.SymFloat) else float(value)


def check_word(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_exact_steps(exact_steps: SupportsIndex | None) -> int:
    if exact_steps is None:
        return ALL_EXACT
    steps = as_int(exact_steps)
    if steps is None:
        raise TypeError(f"exact_steps must be an int >= 0, or None for all steps, got {type(exact_steps).__name__}")
    if steps < 0:
        raise ValueError(f"exact_steps must be >= 0, or None for all steps, got {steps}")
    return min(steps, 2**63 - 1)  # which no number of steps reaches


def check_k(k: SupportsIndex, meaning: str, *sizes: int) -> int:
    """0 <= k <= min(sizes). `meaning` is filled in with the sizes only on failure: in a traced graph that would fix them."""
    number = as_int(k)
    if number is None:
        raise TypeError(f"k must be an int, got {type(k).__name__}")
    if number < 0 or number > min(sizes):
        raise ValueError(f"k must be between 0 and {min(sizes)} ({meaning.format(*sizes)}), got {number}")
    return number


def check_first_row(first_row: SupportsIndex) -> int:
    number = as_int(first_row)
    if number is None:
        raise TypeError(f"first_row must be an int, got {type(first_row).__name__}")
    if not 0 <= number < 2**62:
        raise ValueError(f"first_row must lie in [0, 2^62), got {number}")
    return number


def check_patch_replace(
    target: Tensor, source: Tensor, gate_weight: Tensor, gate_bias: Tensor | None, k: SupportsIndex
) -> int:
    """k, of all arguments of `patch_replace` but the options and the randomness."""
    check_tokens("target", target)
    check_tokens("source", source)
    if source.dtype != target.dtype:
        raise TypeError(f"source must have target's dtype {target.dtype}, got {source.dtype}")
    if source.device != target.device:
        raise wrong_device("source", source, "target", target)
    batch, num_target, features = target.shape
    source_batch, num_source, source_features = source.shape
    if source_batch != batch or source_features != features:
        raise ValueError(
            f"source must have shape ({batch}, patches, {features}) to match target {tuple(target.shape)}, "
            f"got {tuple(source.shape)}"
        )
    check_gate(gate_weight, gate_bias, "target", target)
    return check_k(k, "{} target and {} source patches", num_target, num_source)


@dataclass(frozen=True, kw_only=True)
class ReplaceOptions:
    """The options of `patch_replace` that do not depend on the tensors.

    Attributes:
        flat: the same as the numbers and flags that the operators take, in their order: tau, noise_scale, the place of selection
            in `SELECTIONS`, whether replace is "highest", whether pairing is "score", exact_steps, whether there is a gradient.

    Raises:
        TypeError, ValueError: an option of the wrong type or range; the message names it.
    """

    tau: float = 0.9
    noise_scale: float = 1.0
    selection: str = "gumbel"
    replace: str = "lowest"
    pairing: str = "position"
    exact_steps: SupportsIndex | None = 8
    straight_through: bool | None = None
    flat: tuple[float, float, int, bool, bool, int, bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_word("selection", self.selection, SELECTIONS)
        check_word("replace", self.replace, REPLACE)
        check_word("pairing", self.pairing, PAIRINGS)
        relax = self.straight_through
        if not (relax is None or isinstance(relax, bool)):
            raise TypeError(f"straight_through must be True, False or None, got {type(relax).__name__}")
        if relax and self.selection == "random":
            raise ValueError(
                "straight_through must be False or None with selection='random': noise alone has no gate to train"
            )
        flat = (
            check_number("tau", self.tau, LEAST_TAU),
            check_number("noise_scale", self.noise_scale),
            SELECTIONS.index(self.selection),
            self.replace == "highest",
            self.pairing == "score",
            check_exact_steps(self.exact_steps),
            self.selection == "gumbel" if relax is None else relax,
        )
        object.__setattr__(self, "flat", flat)


# A training loop calls with the same options over and over, and a tiny call should cost little more than its kernel.
# Errors are not remembered; `typed` keeps True from passing for 1.
_remembered_options = functools.lru_cache(maxsize=64, typed=True)(ReplaceOptions)


def replace_options(**options: Any) -> ReplaceOptions:
    if not torch.compiler.is_compiling():
        try:
            return _remembered_options(**options)
        except TypeError:  # a wrong type, or one that cannot be remembered
            pass
    return ReplaceOptions(**options)


def unpack_options(
    tau: float,
    noise_scale: float,
    selection: int,
    highest: bool,
    by_score: bool,
    exact_steps: int,
    relax: bool,
    first_row: int = 0,
) -> tuple[ReplaceOptions, int]:
    """(options, first_row) from `ReplaceOptions.flat` and what else an operator takes after it."""
    options = replace_options(
        tau=tau,
        noise_scale=noise_scale,
        selection=SELECTIONS[selection],
        replace=REPLACE[highest],
        pairing=PAIRINGS[by_score],
        exact_steps=None if exact_steps == ALL_EXACT else exact_steps,
        straight_through=relax,
    )
    return options, first_row


def check_noise(name: str, noise: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    check_floating(name, noise)
    if tuple(noise.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(noise.shape)}")
    if noise.device != like.device:
        raise wrong_device(name, noise, "the tokens", like)
    return noise.detach().to(accumulation_dtype(like.dtype))


def check_seed(seed: SupportsIndex | Tensor | None, generator: torch.Generator | None) -> int | Tensor | None:
    """The seed, as an int where it is no tensor."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    if seed is None:
        return None
    if generator is not None:
        raise ValueError("seed and generator must not both be given: each alone decides the noise")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(
                f"seed must be an int or an int64 tensor of one element, got {seed.dtype} of shape {tuple(seed.shape)}"
            )
        return seed
    number = as_int(seed)
    if number is None:
        raise TypeError(f"seed must be an int or an int64 tensor of one element, got {type(seed).__name__}")
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"seed must fit into 64 bits, got {number}")
    return number


def draw_seed(generator: torch.Generator | None = None, device: torch.device | str | None = None) -> Tensor:
    """Draws one seed for the Philox stream: an int64 tensor of shape (), uniform in [0, 2^63 - 1).

    From `generator`, or from the default generator of `device`, so `torch.manual_seed` makes it repeatable; works inside
    `torch.compile` and repeats under activation checkpointing. `device` is where the seed is put (default: the generator's
    device, or the CPU).

    Raises:
        TypeError: `generator` is not a torch.Generator.
    """
    if generator is None:
        return torch.randint(2**63 - 1, (), device=device)
    check_seed(None, generator)
    seed = torch.randint(2**63 - 1, (), device=generator.device, generator=generator)
    return seed if device is None else _put(seed, torch.device(device))


def _put(seed: Tensor, device: torch.device) -> Tensor:
    """The seed on a device. A CUDA graph keeps one from the CPU as a number, since it cannot capture a copy from there."""
    crosses = seed.device.type == "cpu" and device.type == "cuda" and not torch.compiler.is_compiling()
    if crosses and torch.cuda.is_current_stream_capturing():
        return torch.full((), int(seed), dtype=torch.int64, device=device)
    return seed.to(device)


def settle_seed(seed: SupportsIndex | Tensor | None, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """One int64 seed on `device`, from whichever of `seed` and `generator` was given, or from the default generator."""
    seed = check_seed(seed, generator)
    if seed is None:
        return draw_seed(generator, device)
    if isinstance(seed, Tensor):
        return _put(seed, device)
    return torch.full((), seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64, device=device)


def settle_randomness(
    target: Tensor,
    source: Tensor,
    selection: str,
    seed: SupportsIndex | Tensor | None,
    generator: torch.Generator | None,
    noise: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(seed, noise_target, noise_source): a seed, or the caller's own Gumbel values, or nothing for `selection="topk"`."""
    if noise is not None:
        if seed is not None or generator is not None:
            raise ValueError("noise must not be given together with seed or generator: it is already drawn")
        if not isinstance(noise, (tuple, list)) or len(noise) != 2:
            raise TypeError(f"noise must be a pair (noise_target, noise_source), got {type(noise).__name__}")
        noise_target = check_noise("noise[0] (target)", noise[0], (target.shape[0], target.shape[1]), target)
        noise_source = check_noise("noise[1] (source)", noise[1], (source.shape[0], source.shape[1]), source)
        return (None, None, None) if selection == "topk" else (None, noise_target, noise_source)
    if selection == "topk":
        check_seed(seed, generator)
        return None, None, None
    return settle_seed(seed, generator, target.device), None, None


def second_derivative_refused(operator_name: str) -> RuntimeError:
    return RuntimeError(
        f"{operator_name} has first derivatives only: its gradient cannot be differentiated (create_graph=True)"
    )


def first_derivative_only(operator_name: str) -> None:
    """For the start of a backward pass: with `create_graph=True`, and only then, it is recorded to be differentiated again.

    `torch.autograd.function.once_differentiable` takes the gradient for a constant where the incoming one is.
    """
    if torch.is_grad_enabled():
        raise second_derivative_refused(operator_name)


def check_changeable(name: str, tensor: Tensor) -> None:
    """What PyTorch's own in-place operations refuse before they change anything."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{name} is an inference tensor, which must not be changed in place outside torch.inference_mode(): clone() it"
        )
    base = tensor._base
    if tensor.requires_grad and torch.is_grad_enabled() and (tensor if base is None else base).is_leaf:
        raise RuntimeError(
            f"{name} is a leaf Variable that requires grad, or a view of one, and must not be changed in place"
        )
