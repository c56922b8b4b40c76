"""The operators as functions: check the arguments, settle the seed, call one registered operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, SupportsIndex, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.autograd import forward_ad

from . import _library
from ._checks import (
    LEAST_TAU,
    ReplaceOptions,
    accumulation_dtype,
    check_changeable,
    check_exact_steps,
    check_first_row,
    check_floating,
    check_gate,
    check_int,
    check_noise,
    check_number,
    check_replace,
    check_tokens,
    replace_options,
    settle_seed,
)
from ._ops import ops
from ._types import PatchReplaceResult, TopKResult, replaced_share

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _call(name: str, arguments: tuple, differentiable: int):
    """One registered operator, of whose arguments the first `differentiable` may need a gradient.

    Its registered autograd formula costs more than a tiny call itself: the same formula as an autograd function serves where
    nothing is traced, and none where no gradient is needed.
    """
    operator = getattr(ops, name).default
    if torch.compiler.is_compiling():
        return operator(*arguments)
    if torch._C._are_functorch_transforms_active():
        return _library.TRANSFORMABLE[name].apply(*arguments)
    if _needs_gradient(arguments[:differentiable]):
        return _library.EAGER[name].apply(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _needs_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    if forward_ad._current_level >= 0:
        return True  # there are no forward-mode derivatives: the autograd function says so where one is asked for
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def gate_scores(tokens: Tensor, gate_weight: Tensor, gate_bias: Tensor | None = None) -> Tensor:
    """Scores of patches by the gate of PaRe: `sigmoid(tokens @ gate_weight + gate_bias)`.

    Args:
        tokens: (B, N, D), float32, bfloat16, float16 or float64.
        gate_weight: (D,) or (1, D), any of those types.
        gate_bias: one number, shape () or (1,), or None.

    Returns:
        (B, N), float32 whatever the tokens' type (float64 for float64 tokens), in (0, 1). Differentiable in all three arguments.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
    """
    check_tokens("tokens", tokens)
    check_gate(gate_weight, gate_bias, "tokens", tokens)
    return _call("gate_scores", (tokens, gate_weight, gate_bias), 3)


def gumbel_topk(
    scores: Tensor,
    k: SupportsIndex,
    *,
    tau: float = 0.9,
    noise_scale: float = 1.0,
    exact_steps: SupportsIndex | None = 8,
    seed: SupportsIndex | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    stream: SupportsIndex = 0,
    first_row: SupportsIndex = 0,
) -> TopKResult:
    """A random k-subset of each row, with the straight-through gradient of the relaxed subset sampler.

    The subset is the exact top-k of `scores + noise_scale * G` with Gumbel noise G (a draw without replacement, in proportion to
    exp(scores) at `noise_scale=1`). The relaxation is that of Xie and Ermon (IJCAI 2019): `exact_steps` of its k softmax steps one
    by one, the rest in closed form; see `pare_kernels.reference`.

    Args:
        scores: (..., N), float32, bfloat16, float16 or float64; computed in float32 (float64 for float64).
        k: how many patches of each row, 0 <= k <= N.
        tau: temperature of the relaxation, >= 1e-6.
        noise_scale: factor on the Gumbel noise, >= 0; 0 gives the plain top-k.
        exact_steps: steps of the relaxation that run one by one; None: all k.
        seed: 64-bit seed of the Philox noise, an int or an int64 tensor of one element.
        generator: draws the seed; without seed, generator and noise the default generator does.
        noise: Gumbel values to use instead, of the shape of `scores`; -inf excludes a patch.
        stream: which of the independent noise streams of one seed (`patch_replace` uses 0 for the target, 1 for the source).
        first_row: the row of the seed's noise that the first row of `scores` has, in [0, 2^62); row b has that of `first_row + b`.

    Returns:
        `TopKResult(indices, mask, relaxed)`. Equal scores: the lower index ranks higher; NaN ranks below everything. Rows of
        `relaxed` sum to k. For it, a noisy score more than 700 tau below the largest of its row counts as -inf: it gets 0 and no
        gradient. So scores of +inf share their row, and one that is alone has all k.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
    """
    check_floating("scores", scores)
    if scores.ndim == 0:
        raise ValueError("scores must have shape (..., patches), got a tensor of shape ()")
    patches = scores.shape[-1]
    k = check_int("k", k, 0, patches, "an int between 0 and {} (patches per row)", patches)
    tau = check_number("tau", tau, LEAST_TAU)
    noise_scale = check_number("noise_scale", noise_scale)
    steps = check_exact_steps(exact_steps)
    stream = check_int("stream", stream, 0, 2**32 - 1, "an int in [0, 2^32)")
    first_row = check_first_row(first_row)
    rows = scores.unsqueeze(0) if scores.ndim == 1 else scores.flatten(0, -2)
    if noise is not None:
        noise = check_noise("noise", noise, scores.shape, scores).reshape(rows.shape)
    seed = settle_seed(seed, generator, noise, scores.device)
    # The cast stays outside the operator, so that autograd brings the gradient back in the type of the scores.
    rows = rows.to(accumulation_dtype(scores.dtype))
    arguments = rows, noise, seed, stream, k, tau, noise_scale, steps, first_row
    mask, relaxed, _, indices = _call("gumbel_topk", arguments, 1)
    leading = scores.shape[:-1]
    return TopKResult(
        indices.reshape(*leading, k), mask.to(scores.dtype).reshape(scores.shape), relaxed.reshape(scores.shape)
    )


def patch_replace(
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    *,
    k: SupportsIndex,
    tau: float = 0.9,
    noise_scale: float = 1.0,
    selection: str = "gumbel",
    replace: str = "lowest",
    pairing: str = "position",
    exact_steps: SupportsIndex | None = 8,
    seed: SupportsIndex | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    first_row: SupportsIndex = 0,
    straight_through: bool | None = None,
) -> PatchReplaceResult:
    """Replaces k patches of each target sample by patches of a source sample, chosen by a gate (PaRe, Cai et al., ICML 2024).

    The gate scores all patches of both samples; with Gumbel noise on the scores, the k best source patches take the places of the
    k worst target patches, copied bit for bit. The hard choice has the gradient of a relaxed one (straight-through), through
    which the gate learns.

    Args:
        target: (B, Nt, D) patch tokens of the target modality; float32, bfloat16, float16 or float64.
        source: (B, Ns, D) patch tokens of the source modality, same dtype and device; Ns may differ from Nt.
        gate_weight: (D,) or (1, D), the gate's linear layer, shared by both modalities.
        gate_bias: one number, shape () or (1,), or None.
        k: how many target patches are replaced, 0 <= k <= min(Nt, Ns).
        tau: temperature of the relaxation, >= 1e-6. From 0.3 up the hard choice is also the top-k of the relaxed one. In the
            relaxation a noisy score more than 700 tau below the best of its row counts as -inf, and has no gradient.
        noise_scale: factor on the Gumbel noise, >= 0. The scores lie in (0, 1) and the noise has standard deviation 1.28, so at
            1.0, the paper's value, the choice is nearly random.
        selection: "gumbel" (noisy scores), "topk" (scores as they are), "random" (noise alone).
        replace: which target patches give way, those with the "lowest" or the "highest" scores.
        pairing: "position": the j-th free slot takes the j-th chosen source patch, both ascending; "score": the free slots from
            the lowest noisy score up take the chosen source patches from the highest down. Of equal scores the lower index ranks
            higher: of tied patches the lower index goes first, of tied slots the higher one. NaN ranks below everything.
        exact_steps: how many steps of the relaxation run one by one, the rest follows in closed form; None: all, the paper's form.
        seed: 64-bit seed of the Philox noise, an int or an int64 tensor of one element. The same seed draws the same random
            integers on every device and noise that is equal to within rounding (about 1e-6, for float64 tokens 1e-15): the same
            patches, unless two scores are that close.
        generator: draws the seed; without seed, generator and noise the default generator of the tensors' device does.
        noise: (noise_target, noise_source) of shapes (B, Nt) and (B, Ns): Gumbel values used as they are, before `noise_scale`;
            -inf excludes a patch: a source patch from being chosen, a target patch from being kept (with `replace="highest"`: from
            being replaced).
        first_row: the row of the seed's noise that the first sample has, in [0, 2^62); sample b has that of row `first_row + b`. So
            a sample's noise is the same however a batch is divided: who holds its samples from i on passes `first_row=i` with
            the seed of all. Without effect on given `noise`.
        straight_through: whether the choice has a gradient; None: with "gumbel" only, as in the paper. "topk" may turn it on.

    Returns:
        `PatchReplaceResult(mixed, lam, target_index, source_index)`. `mixed` (B, Nt, D) is differentiable in `target`, `source`,
        `gate_weight` and `gate_bias`. Scores are computed in float32 (float64 for float64 tokens), under autocast too. Under
        `torch.compile`, k, the seed and each dimension may change: the first change of each compiles once more, later ones do not
        (but for sizes of 0 and 1, k among them, which PyTorch compiles by themselves). `tau` and `noise_scale` may change too,
        each value for a compilation of its own. Numbers must be Python's there: Dynamo takes NumPy's for tensors.

        A CUDA graph keeps a seed that came from the CPU; one on the device may change between replays.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
    """
    options = replace_options(
        tau=tau,
        noise_scale=noise_scale,
        selection=selection,
        replace=replace,
        pairing=pairing,
        exact_steps=exact_steps,
        straight_through=straight_through,
    )
    randomness = seed, generator, noise, first_row
    return replace_with(options, target, source, gate_weight, gate_bias, k, *randomness)


def replace_with(options: ReplaceOptions, target: Tensor, source: Tensor, *rest: Any) -> PatchReplaceResult:
    """`patch_replace` with its options as one; `rest`: the gate, k and the randomness, as `check_replace` takes them."""
    arguments = check_replace(options, target, source, *rest)
    mixed, target_index, source_index, _ = _call("patch_replace", arguments, 4)
    return PatchReplaceResult(mixed, replaced_share(arguments.k, target.shape[1]), target_index, source_index)


def _same_arguments_as(
    example: Callable[Arguments, object],
) -> Callable[[Callable[..., Result]], Callable[Arguments, Result]]:
    """Declares that a function takes the arguments of another, to type checkers and to `help`."""

    def declare(function: Callable[..., Result]) -> Callable[Arguments, Result]:
        function.__signature__ = inspect.signature(example)  # type: ignore[attr-defined]
        return function

    return declare


@_same_arguments_as(patch_replace)
def patch_swap_(
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    *,
    k: SupportsIndex,
    seed: SupportsIndex | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    first_row: SupportsIndex = 0,
    **options: Any,
) -> PatchReplaceResult:
    """`patch_replace` in place: exchanges the k chosen pairs of rows between the two buffers.

    `target` becomes what `patch_replace` returns as `mixed`, `source` receives the displaced target patches in the places of the
    patches that left; no memory of token size is taken, but for a view that needs a gradient and under `torch.func`. The gradient
    of `target` is that of `patch_replace`; a gradient that arrives at `source` afterwards follows the rows back to where they came
    from and does not reach the gate.

    Arguments, result and errors as in `patch_replace`, and:

    Raises:
        ValueError: `target` or `source` has several elements in one memory location (an expanded tensor), is a lazily negated
            view, or may share memory with the other, the gate or the noise (exact for rows whose features lie side by side;
            cannot be seen inside `torch.compile`).
        RuntimeError: a leaf tensor that requires a gradient, or an inference tensor outside `torch.inference_mode()` (as for every
            in-place operation of PyTorch).
    """
    randomness = seed, generator, noise, first_row
    arguments = check_replace(replace_options(**options), target, source, gate_weight, gate_bias, k, *randomness)
    read = {
        "gate_weight": gate_weight,
        "gate_bias": gate_bias,
        "noise[0] (target)": arguments.noise_target,
        "noise[1] (source)": arguments.noise_source,
    }
    _check_in_place({"target": target, "source": source}, read)
    needs_gradient = _needs_gradient(arguments[:4])
    copies = needs_gradient and (torch.compiler.is_compiling() or target._is_view() or source._is_view())
    if copies or torch._C._are_functorch_transforms_active():
        # Under torch.func and in a traced graph no autograd function can mark its inputs as changed, and none with several
        # outputs may mark a view.
        mixed, displaced, target_index, source_index, _ = _call("patch_swap", arguments, 4)
        target.copy_(mixed)
        source.copy_(displaced)
    elif needs_gradient:
        _, _, target_index, source_index, _ = _library.PatchSwap.apply(*arguments)
    elif torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        target_index, source_index, _ = ops.patch_swap_.default(*arguments)
    else:  # the same by a shorter way: `_library._count_versions` costs more than a tiny exchange itself
        torch.autograd.graph.increment_version((target, source))
        with torch._C._AutoDispatchBelowADInplaceOrView():
            target_index, source_index, _ = ops.patch_swap_.default(*arguments)
    return PatchReplaceResult(target, replaced_share(arguments.k, target.shape[1]), target_index, source_index)


def _check_in_place(written: dict[str, Tensor], read: dict[str, Tensor | None]) -> None:
    """Whether `written` may be exchanged while `read` is read: no element of theirs is anywhere twice.

    Raises:
        ValueError, RuntimeError: a tensor that cannot be changed in place, or one that shares memory with another.
    """
    for name, tensor in written.items():
        if tensor.is_contiguous():
            continue
        extent = 1  # of the inner dimensions in memory; a dimension that steps over all of it meets none of its elements twice
        for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
            if size > 1 and stride < extent:
                raise ValueError(
                    f"{name} must own each of its elements to be changed in place, but several share one place in memory "
                    f"(an expanded tensor?): strides {tensor.stride()} for shape {tuple(tensor.shape)}"
                )
            extent += (size - 1) * stride
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return  # no addresses there
    for name, tensor in written.items():
        check_changeable(name, tensor)
        if tensor.is_neg():
            raise ValueError(
                f"{name} must hold its own numbers to be changed in place, but is a negated view: resolve_neg() it"
            )
    places = [(name, tensor, *_place(tensor)) for name, tensor in (written | read).items() if tensor is not None]
    for index, (name, tensor, memory, begin, end) in enumerate(places[: len(written)]):
        for other_name, other, other_memory, other_begin, other_end in places[index + 1 :]:
            together = begin < other_end and other_begin < end and memory == other_memory
            if together and _overlap(tensor, other):
                raise ValueError(
                    f"{name} and {other_name} must not share memory, since rows are exchanged in place, but they may meet in one "
                    f"buffer: shapes {tuple(tensor.shape)} and {tuple(other.shape)}, strides {tensor.stride()} and {other.stride()}"
                )


def _place(tensor: Tensor) -> tuple[object, int, int]:
    """The memory that a tensor lies in, and where it begins and ends there, in bytes.

    Two storages may lie in one memory, over an array of NumPy, say. One without an address (of fake and meta tensors, on other
    devices) is a memory of its own.
    """
    size, reach = tensor.element_size(), tensor.numel()
    if reach > 0 and not tensor.is_contiguous():
        reach = 1 + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    if (tensor.is_cpu or tensor.is_cuda) and not isinstance(tensor, FakeTensor):
        memory, begin = tensor.device, tensor.data_ptr()
    else:
        memory, begin = tensor.untyped_storage()._cdata, tensor.storage_offset() * size
    return memory, begin, begin + reach * size


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in one memory have a byte in common.

    Exact where the last dimension of both lies side by side; else whether the ranges of their addresses meet.
    """
    if a.numel() == 0 or b.numel() == 0:
        return False
    with unset_fake_temporarily():  # places in memory are numbers even where tensors are fake
        starts, ends = (torch.cat(parts) for parts in zip(_runs(a), _runs(b), strict=True))
        starts, order = starts.sort()
        return bool((ends[order][:-1] > starts[1:]).any())


def _runs(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Where each stretch of memory that a tensor covers begins and ends; where its last dimension has gaps, all it reaches over
    is one stretch."""
    shape, strides, size = tensor.shape or (1,), tensor.stride() or (1,), tensor.element_size()
    _, begin, end = _place(tensor)
    starts = torch.tensor([begin], device="cpu")
    if shape[-1] > 1 and strides[-1] != 1:
        return starts, torch.tensor([end], device="cpu")
    for length, stride in zip(shape[:-1], strides[:-1], strict=True):
        starts = (starts[:, None] + torch.arange(length, device="cpu") * (stride * size)).unique()
    return starts, starts + shape[-1] * size
