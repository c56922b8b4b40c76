"""The operators as functions: check the arguments, settle the seed, call one registered operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd import forward_ad

from pare_kernels import _library
from pare_kernels._checks import (
    LEAST_TAU,
    accumulation_dtype,
    check_exact_steps,
    check_floating,
    check_gate,
    check_k,
    check_noise,
    check_number,
    check_patch_replace,
    check_tokens,
    settle_randomness,
    settle_seed,
)
from pare_kernels._types import PatchReplaceResult, TopKResult, replaced_share

_ops = torch.ops.pare_kernels


def _call(name: str, differentiable: tuple[Tensor | None, ...], *others):
    """One registered operator, whose arguments begin with those that may need a gradient.

    Its registered autograd formula costs more than a tiny call itself: the same formula as an autograd function serves where
    nothing is traced, and none where no gradient is needed.
    """
    operator = getattr(_ops, name).default
    if torch.compiler.is_compiling():
        return operator(*differentiable, *others)
    if torch._C._are_functorch_transforms_active():
        return _library.TRANSFORMABLE[name].apply(*differentiable, *others)
    if _needs_gradient(*differentiable):
        return _library.EAGER[name].apply(*differentiable, *others)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*differentiable, *others)


def _is_transformed() -> bool:
    """Whether torch.func (grad, vmap, ...) is at work, outside of traced graphs, which do their own."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _needs_gradient(*tensors: Tensor | None) -> bool:
    if forward_ad._current_level >= 0:
        return (
            True  # forward-mode derivatives are not to be had: the autograd function says so where they are asked for
        )
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
    return _call("gate_scores", (tokens, gate_weight, gate_bias))


def gumbel_topk(
    scores: Tensor,
    k: int,
    *,
    tau: float = 0.9,
    noise_scale: float = 1.0,
    exact_steps: int | None = 8,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    stream: int = 0,
) -> TopKResult:
    """A random k-subset of each row, with the straight-through gradient of the relaxed subset sampler.

    The subset is the exact top-k of `scores + noise_scale * G` with Gumbel noise G (a draw without replacement, in proportion to
    exp(scores) at `noise_scale=1`). The relaxation is that of Xie and Ermon (IJCAI 2019): `exact_steps` of its k softmax steps one
    by one, the rest in closed form; see `pare_kernels.reference`.

    Args:
        scores: (..., N), float32, bfloat16, float16 or float64; computed in float32 (float64 for float64).
        k: how many items of each row, 0 <= k <= N.
        tau: temperature of the relaxation, >= 1e-6.
        noise_scale: factor on the Gumbel noise, >= 0; 0 gives the plain top-k.
        exact_steps: steps of the relaxation that run one by one; None: all k.
        seed: 64-bit seed of the Philox noise, an int or an int64 tensor of one element.
        generator: draws the seed; without seed, generator and noise the default generator does.
        noise: Gumbel values to use instead, of the shape of `scores`; -inf excludes an item.
        stream: which of the independent noise streams of one seed (`patch_replace` uses 0 for the target, 1 for the source).

    Returns:
        `TopKResult(indices, mask, relaxed)`. Equal scores: the lower index ranks higher; NaN ranks below everything. Rows of
        `relaxed` sum to k. For it, a noisy score more than 700 tau below the largest of its row counts as -inf: it gets 0 and no
        gradient. So scores of +inf share their row, and one that is alone has all k.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
    """
    check_floating("scores", scores)
    if scores.ndim == 0:
        raise ValueError("scores must have shape (..., items), got a tensor of shape ()")
    check_k(k, "{} items per row", scores.shape[-1])
    tau = check_number("tau", tau, LEAST_TAU)
    noise_scale = check_number("noise_scale", noise_scale)
    steps = check_exact_steps(exact_steps)
    if isinstance(stream, bool) or not isinstance(stream, int) or not 0 <= stream < 2**32:
        raise ValueError(f"stream must be an int in [0, 2^32), got {stream!r}")
    if noise is not None:
        if seed is not None or generator is not None:
            raise ValueError("noise must not be given together with seed or generator: it is already drawn")
        noise = check_noise("noise", noise, scores.shape, scores).flatten(0, -2)
    else:
        seed = settle_seed(seed, generator, scores.device)
    rows = scores.unsqueeze(0) if scores.ndim == 1 else scores.flatten(0, -2)
    if noise is not None:
        noise = noise.reshape(rows.shape)
    # The cast stays outside the operator, so that autograd brings the gradient back in the type of the scores.
    rows = rows.to(accumulation_dtype(scores.dtype))
    mask, relaxed, _, indices = _call("gumbel_topk", (rows,), noise, seed, stream, k, tau, noise_scale, steps)
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
    k: int,
    tau: float = 0.9,
    noise_scale: float = 1.0,
    selection: str = "gumbel",
    replace: str = "lowest",
    pairing: str = "position",
    exact_steps: int | None = 8,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
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
        seed: 64-bit seed of the Philox noise, an int or an int64 tensor of one element. The same seed makes the same noise on
            every device.
        generator: draws the seed; without seed, generator and noise the default generator of the tensors' device does.
        noise: (noise_target, noise_source) of shapes (B, Nt) and (B, Ns): Gumbel values used as they are, before `noise_scale`;
            -inf excludes a patch: a source patch from being chosen, a target patch from being kept (with `replace="highest"`: from
            being replaced).
        straight_through: whether the choice has a gradient; None: with "gumbel" only, as in the paper. "topk" may turn it on.

    Returns:
        `PatchReplaceResult(mixed, lam, target_index, source_index)`. `mixed` (B, Nt, D) is differentiable in `target`, `source`,
        `gate_weight` and `gate_bias`. Scores are computed in float32 (float64 for float64 tokens), under autocast too. Under
        `torch.compile`, k, the seed and the shapes may change without another compilation; `tau` and `noise_scale` may change
        too, each value for a compilation of its own.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range; the message names it.
    """
    options = check_patch_replace(
        target,
        source,
        gate_weight,
        gate_bias,
        k,
        tau,
        noise_scale,
        selection,
        replace,
        pairing,
        exact_steps,
        straight_through,
    )
    randomness = settle_randomness(target, source, selection, seed, generator, noise)
    mixed, target_index, source_index, *_ = _call(
        "patch_replace", (target, source, gate_weight, gate_bias), *randomness, k, *options
    )
    return PatchReplaceResult(mixed, replaced_share(k, target.shape[1]), target_index, source_index)


def patch_swap_(
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    *,
    k: int,
    tau: float = 0.9,
    noise_scale: float = 1.0,
    selection: str = "gumbel",
    replace: str = "lowest",
    pairing: str = "position",
    exact_steps: int | None = 8,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    straight_through: bool | None = None,
) -> PatchReplaceResult:
    """`patch_replace` in place: exchanges the k chosen pairs of rows between the two buffers.

    `target` becomes what `patch_replace` returns as `mixed`, `source` receives the displaced target patches in the places of the
    patches that left; no memory of token size is taken, but for a view that needs a gradient and under `torch.func`. The gradient
    of `target` is that of `patch_replace`; a gradient that arrives at `source` afterwards follows the rows back to where they came
    from and does not reach the gate.

    Arguments, result and errors as in `patch_replace`, and:

    Raises:
        ValueError: `target` or `source` has several elements in one memory location (an expanded tensor), is a lazily negated
            view, or the two may share memory (exact for rows whose features lie side by side; cannot be seen inside
            `torch.compile`).
        RuntimeError: a leaf tensor that requires a gradient (as for every in-place operation of PyTorch).
    """
    options = check_patch_replace(
        target,
        source,
        gate_weight,
        gate_bias,
        k,
        tau,
        noise_scale,
        selection,
        replace,
        pairing,
        exact_steps,
        straight_through,
    )
    _check_writable(target, source)
    randomness = settle_randomness(target, source, selection, seed, generator, noise)
    differentiable = (target, source, gate_weight, gate_bias)
    needs_gradient = _needs_gradient(*differentiable)
    copies = needs_gradient and (torch.compiler.is_compiling() or target._is_view() or source._is_view())
    if copies or _is_transformed():
        # Under torch.func and in a traced graph no autograd function can mark its inputs as changed, and none with several
        # outputs may mark a view.
        mixed, displaced, target_index, source_index, *_ = _call("patch_swap", differentiable, *randomness, k, *options)
        target.copy_(mixed)
        source.copy_(displaced)
    elif needs_gradient:
        _, _, target_index, source_index, *_ = _library.PatchSwap.apply(*differentiable, *randomness, k, *options)
    else:
        target_index, source_index, *_ = _ops.patch_swap_.default(*differentiable, *randomness, k, *options)
    return PatchReplaceResult(target, replaced_share(k, target.shape[1]), target_index, source_index)


def _check_writable(target: Tensor, source: Tensor) -> None:
    for name, tensor in (("target", target), ("source", source)):
        extent = 1  # of the inner dimensions in memory; a dimension that steps over all of it meets none of its elements twice
        for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
            if size > 1 and stride < extent:
                raise ValueError(
                    f"{name} must own each of its elements to be changed in place, but several share one place in memory "
                    f"(an expanded tensor?): strides {tensor.stride()} for shape {tuple(tensor.shape)}"
                )
            extent += (size - 1) * stride
    if torch.compiler.is_compiling() or _is_transformed():
        return  # no addresses there
    for name, tensor in (("target", target), ("source", source)):
        if tensor.is_neg():
            raise ValueError(
                f"{name} must hold its own numbers to be changed in place, but is a negated view: resolve_neg() it"
            )
    if _same_storage(target, source) and _overlap(target, source):
        raise ValueError(
            "target and source must not share memory, since their rows are exchanged in place, but they are views of one buffer "
            f"that may meet: strides {tuple(target.stride())} and {tuple(source.stride())}"
        )


def _same_storage(a: Tensor, b: Tensor) -> bool:
    one, other = a.untyped_storage(), b.untyped_storage()
    if one._cdata == other._cdata:
        return True
    if type(a) is not Tensor or type(b) is not Tensor:
        return False  # fake tensors have no address, and those of other subclasses may mean nothing
    return one.data_ptr() == other.data_ptr() != 0  # two storages over one array of NumPy; 0: meta tensors


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one storage, each without overlaps of its own, have an element in common.

    Exact where the features of a row lie side by side; else whether the ranges of their addresses meet.
    """
    if a.numel() == 0 or b.numel() == 0:
        return False
    starts, ends = [], []
    with unset_fake_temporarily():  # places in memory are numbers even where tensors are fake
        for tensor in (a, b):
            offset, (batch, rows, features), strides = tensor.storage_offset(), tensor.shape, tensor.stride()
            if features > 1 and strides[2] != 1:
                features = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
                batch = rows = 1  # as if it were one row from its first element to its last
            begin = offset + torch.arange(batch, device="cpu")[:, None] * strides[0]
            begin = begin + torch.arange(rows, device="cpu") * strides[1]
            starts.append(begin.flatten())
            ends.append(begin.flatten() + features)
        start, order = torch.cat(starts).sort()
        return bool((torch.cat(ends)[order][:-1] > start[1:]).any())
