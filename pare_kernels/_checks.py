"""Argument checks: each error names the argument, what it was and what was expected, before any kernel starts."""

from __future__ import annotations

import functools
import math
import numbers
import operator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, SupportsIndex

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


def check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like {other_name}, but is on {tensor.device}")


def check_gate(weight: Tensor, bias: Tensor | None, tokens_name: str, tokens: Tensor) -> None:
    check_floating("gate_weight", weight)
    features, shape = tokens.shape[-1], weight.shape
    if shape != (features,) and shape != (1, features):
        raise ValueError(
            f"gate_weight must have shape ({features},) or (1, {features}) for {tokens_name} with {features} features, "
            f"got {tuple(shape)}"
        )
    check_device("gate_weight", weight, tokens_name, tokens)
    if bias is None:
        return
    check_floating("gate_bias", bias)
    if bias.ndim > 1 or bias.numel() != 1:
        raise ValueError(f"gate_bias must be one number, of shape () or (1,), got shape {tuple(bias.shape)}")
    check_device("gate_bias", bias, tokens_name, tokens)


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


def check_int(name: str, value: Any, least: int, most: int | None, wanted: str, *numbers: int) -> int:
    """`value` as an int, least <= value <= most. `wanted` says so; it is filled in with the numbers only on failure: in a traced
    graph that would fix them."""
    number = value if type(value) is int else as_int(value)
    if number is None:
        raise TypeError(f"{name} must be {wanted.format(*numbers)}, got {type(value).__name__}")
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} must be {wanted.format(*numbers)}, got {number}")
    return number


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
    steps = check_int("exact_steps", exact_steps, 0, None, "an int >= 0, or None for all steps")
    return min(steps, 2**63 - 1)  # which no number of steps reaches


def check_first_row(first_row: SupportsIndex) -> int:
    return check_int("first_row", first_row, 0, 2**62 - 1, "an int in [0, 2^62)")


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


class ReplaceArguments(NamedTuple):
    """What `patch_replace`, `patch_swap_` and `patch_swap` take as operators: flat, in the order of their schema.

    "acc" is float32, or float64 for float64 tokens. tau to relax are `ReplaceOptions.flat`.
    """

    target: Tensor  # (B, Nt, D)
    source: Tensor  # (B, Ns, D)
    gate_weight: Tensor  # (D,) or (1, D)
    gate_bias: Tensor | None  # () or (1,)
    seed: Tensor | None  # int64, one element
    noise_target: Tensor | None  # acc (B, Nt)
    noise_source: Tensor | None  # acc (B, Ns)
    k: int
    tau: float
    noise_scale: float
    selection: int
    highest: bool
    by_score: bool
    exact_steps: int
    relax: bool
    first_row: int = 0

    @property
    def options(self) -> ReplaceOptions:
        return replace_options(
            tau=self.tau,
            noise_scale=self.noise_scale,
            selection=SELECTIONS[self.selection],
            replace=REPLACE[self.highest],
            pairing=PAIRINGS[self.by_score],
            exact_steps=None if self.exact_steps == ALL_EXACT else self.exact_steps,
            straight_through=self.relax,
        )


def check_replace(
    options: ReplaceOptions,
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor | None,
    k: SupportsIndex,
    seed: SupportsIndex | Tensor | None,
    generator: torch.Generator | None,
    noise: tuple[Tensor, Tensor] | None,
    first_row: SupportsIndex,
) -> ReplaceArguments:
    """Everything that `patch_replace` takes, checked: its options as one, the randomness settled."""
    check_tokens("target", target)
    check_tokens("source", source)
    if source.dtype != target.dtype:
        raise TypeError(f"source must have target's dtype {target.dtype}, got {source.dtype}")
    check_device("source", source, "target", target)
    batch, num_target, features = target.shape
    source_batch, num_source, source_features = source.shape
    if source_batch != batch or source_features != features:
        raise ValueError(
            f"source must have shape ({batch}, patches, {features}) to match target {tuple(target.shape)}, "
            f"got {tuple(source.shape)}"
        )
    check_gate(gate_weight, gate_bias, "target", target)
    most = min(num_target, num_source)
    wanted = "an int between 0 and {} ({} target and {} source patches)"
    k = check_int("k", k, 0, most, wanted, most, num_target, num_source)
    first_row = check_first_row(first_row)
    noise_target = noise_source = None
    if noise is not None:
        if not isinstance(noise, (tuple, list)) or len(noise) != 2:
            raise TypeError(f"noise must be a pair (noise_target, noise_source), got {type(noise).__name__}")
        noise_target = check_noise("noise[0] (target)", noise[0], target.shape[:2], target)
        noise_source = check_noise("noise[1] (source)", noise[1], source.shape[:2], source)
    seed = settle_seed(seed, generator, noise, target.device, drawn=options.selection != "topk")
    if options.selection == "topk":
        noise_target = noise_source = None
    return ReplaceArguments(
        target, source, gate_weight, gate_bias, seed, noise_target, noise_source, k, *options.flat, first_row
    )


def check_noise(name: str, noise: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    check_floating(name, noise)
    if tuple(noise.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(noise.shape)}")
    check_device(name, noise, "the tokens", like)
    return noise.detach().to(accumulation_dtype(like.dtype))


def check_generator(generator: torch.Generator | None) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")


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
    check_generator(generator)
    seed = torch.randint(2**63 - 1, (), device=generator.device, generator=generator)
    return seed if device is None else _put(seed, torch.device(device))


def _put(seed: Tensor, device: torch.device) -> Tensor:
    """The seed on a device. A CUDA graph keeps one from the CPU as a number, since it cannot capture a copy from there."""
    if seed.device == device:
        return seed
    crosses = seed.device.type == "cpu" and device.type == "cuda" and not torch.compiler.is_compiling()
    if crosses and torch.cuda.is_current_stream_capturing():
        return torch.full((), int(seed), dtype=torch.int64, device=device)
    return seed.to(device)


def settle_seed(
    seed: SupportsIndex | Tensor | None,
    generator: torch.Generator | None,
    noise: object | None,
    device: torch.device,
    drawn: bool = True,
) -> Tensor | None:
    """One int64 seed on `device`, from whichever of `seed` and `generator` was given, or from the default generator; None where
    the noise is given or (not `drawn`) none is used."""
    check_generator(generator)
    if noise is not None:
        if seed is not None or generator is not None:
            raise ValueError("noise must not be given together with seed or generator: it is already drawn")
        return None
    if seed is None:
        return draw_seed(generator, device) if drawn else None
    if generator is not None:
        raise ValueError("seed and generator must not both be given: each alone decides the noise")
    wanted = "an int of 64 bits or an int64 tensor of one element"
    if not isinstance(seed, Tensor):
        number = check_int("seed", seed, -(2**63), 2**64 - 1, wanted)
        number = number - 2**64 if number >= 2**63 else number
        return torch.full((), number, dtype=torch.int64, device=device) if drawn else None
    if seed.dtype != torch.int64 or seed.numel() != 1:
        raise ValueError(f"seed must be {wanted}, got {seed.dtype} of shape {tuple(seed.shape)}")
    return _put(seed, device) if drawn else None


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
