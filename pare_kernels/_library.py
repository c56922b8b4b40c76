"""Every raw operator of the namespace that `_ops.py` names: schema, fake kernel, autograd formula and fallback, once.

Kernels live elsewhere and register themselves for their device: C++ for the CPU (`csrc/`, the extension module
`pare_kernels._C`), Triton for CUDA (`pare_kernels/_triton/`). On other devices, and without the extension, `_fallback.py` serves;
CUDA without Triton is an error that says so, since the fallback would be slower by orders of magnitude.

Conventions: "acc" is float32, or float64 for float64 tokens. A seed is an int64 tensor of one element; row b of a batch has the
seed's noise of row `first_row + b`. `exact_steps = -1` means all steps. Results that nobody needs (`need_* = False`) are empty
tensors. dweight has the shape of the gate's weight, dbias is (1,), both acc. Autocast: the operators choose their own precision
(scores in acc, rows copied as they are), so no casting is registered and autocast passes through.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings

import torch

from . import _fallback, _triton
from ._checks import (
    RANDOM,
    ReplaceArguments,
    accumulation_dtype,
    check_changeable,
    first_derivative_only,
    second_derivative_refused,
)
from ._ops import add_op_namespace_prefix, ops
from ._types import ChoiceScores

_library = torch.library.Library(ops.name, "DEF")

_FORWARD_ARGUMENTS = (
    "Tensor gate_weight, Tensor? gate_bias, Tensor? seed, Tensor? noise_target, Tensor? noise_source, SymInt k, float tau, "
    "float noise_scale, int selection, bool highest, bool by_score, int exact_steps, bool relax, "
    "SymInt first_row=0"
)
_CHOICE_RESULTS = "Tensor target_index, Tensor source_index, Tensor scores"
_BACKWARD_ARGUMENTS = (
    "Tensor gate_weight, Tensor target_index, Tensor source_index, Tensor scores, float tau, int exact_steps, bool highest, "
    "bool relax, bool need_target, bool need_source, bool need_gate"
)
_GRADIENTS = "Tensor dtarget, Tensor dsource, Tensor dweight, Tensor dbias"

SCHEMAS = {
    # (B, N, D), (D,) or (1, D), () or (1,) -> acc (B, N): sigmoid(tokens @ weight + bias)
    "gate_scores": "(Tensor tokens, Tensor weight, Tensor? bias) -> Tensor",
    # acc (B, N) x 2, (B, N, D), (D,) or (1, D) -> (B, N, D), dweight, dbias
    "gate_scores_backward": (
        "(Tensor grad, Tensor scores, Tensor tokens, Tensor weight, bool need_tokens, bool need_weight)"
        " -> (Tensor dtokens, Tensor dweight, Tensor dbias)"
    ),
    # acc (B, N) scores and noise -> acc (B, N) x 3, int64 (B, k) ascending. Neither noise nor seed: plain top-k.
    "gumbel_topk": (
        "(Tensor scores, Tensor? noise, Tensor? seed, int stream, SymInt k, float tau, float noise_scale, int exact_steps, "
        "SymInt first_row=0) -> (Tensor mask, Tensor relaxed, Tensor noisy, Tensor indices)"
    ),
    # acc (B, N) x 2 -> acc (B, N): J(h)^T grad
    "gumbel_topk_backward": "(Tensor grad, Tensor noisy, SymInt k, float tau, int exact_steps) -> Tensor",
    # `ReplaceArguments` -> (B, Nt, D), int64 (B, k) x 2, acc (2 B (Nt + Ns),): `ChoiceScores`, flat.
    # selection: 0 gumbel, 1 topk, 2 random (tokens are not scored then: half as many scores). tau, exact_steps and
    # relax serve the autograd formula alone.
    "patch_replace": f"(Tensor target, Tensor source, {_FORWARD_ARGUMENTS}) -> (Tensor mixed, {_CHOICE_RESULTS})",
    # (B, Nt, D), then inputs and results of `patch_replace` -> (B, Nt, D), (B, Ns, D), dweight, dbias
    "patch_replace_backward": f"(Tensor grad, Tensor target, Tensor source, {_BACKWARD_ARGUMENTS}) -> ({_GRADIENTS})",
    # Exchanges the k pairs of rows between the two buffers; otherwise as `patch_replace`.
    "patch_swap_": f"(Tensor(a!) target, Tensor(b!) source, {_FORWARD_ARGUMENTS}) -> ({_CHOICE_RESULTS})",
    # The same on copies, for traced graphs, where an operator with a gradient must not change its inputs.
    "patch_swap": (
        f"(Tensor target, Tensor source, {_FORWARD_ARGUMENTS}) -> (Tensor mixed, Tensor displaced, {_CHOICE_RESULTS})"
    ),
    # (B, Nt, D), (B, Ns, D), then as `patch_replace_backward`, but target and source are the buffers after the exchange. No
    # grad_source: nothing depends on the source buffer any more.
    "patch_swap_backward": (
        f"(Tensor grad_target, Tensor? grad_source, Tensor target, Tensor source, {_BACKWARD_ARGUMENTS}) -> ({_GRADIENTS})"
    ),
}

for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(_name, getattr(_fallback, _name), "CompositeExplicitAutograd")


# ---------------------------------------------------------------------------------------------------------------------
# Fake kernels: shapes and dtypes alone.
# ---------------------------------------------------------------------------------------------------------------------


def _fake(name: str):
    return torch.library.register_fake(add_op_namespace_prefix(name), lib=_library)


@_fake("gate_scores")
def _(tokens, weight, bias):
    return tokens.new_empty(tokens.shape[:2], dtype=accumulation_dtype(tokens.dtype))


@_fake("gate_scores_backward")
def _(grad, scores, tokens, weight, need_tokens, need_weight):
    return (
        tokens.new_empty(tokens.shape if need_tokens else (0,)),
        scores.new_empty(weight.shape if need_weight else (0,)),
        scores.new_empty(1 if need_weight else 0),
    )


@_fake("gumbel_topk")
def _(scores, noise, seed, stream, k, *options):
    like = [scores.new_empty(scores.shape) for _ in range(3)]
    return *like, scores.new_empty((scores.shape[0], k), dtype=torch.int64)


@_fake("gumbel_topk_backward")
def _(grad, noisy, k, tau, exact_steps):
    return noisy.new_empty(noisy.shape)


@_fake("patch_swap_")
def _fake_choice(*arguments):
    arguments = ReplaceArguments(*arguments)
    target, source = arguments[:2]
    batch, num_target, _ = target.shape
    index = [target.new_empty((batch, arguments.k), dtype=torch.int64) for _ in range(2)]
    scores = ChoiceScores.numel(batch, num_target, source.shape[1], gated=arguments.selection != RANDOM)
    return *index, target.new_empty(scores, dtype=accumulation_dtype(target.dtype))


@_fake("patch_replace")
def _(target, *arguments):
    return target.new_empty(target.shape), *_fake_choice(target, *arguments)


@_fake("patch_swap")
def _(target, source, *arguments):
    return target.new_empty(target.shape), source.new_empty(source.shape), *_fake_choice(target, source, *arguments)


def _fake_gradients(target, source, gate_weight, need_target, need_source, need_gate):
    dtype = accumulation_dtype(target.dtype)
    return (
        target.new_empty(target.shape if need_target else (0,)),
        source.new_empty(source.shape if need_source else (0,)),
        target.new_empty(gate_weight.shape if need_gate else (0,), dtype=dtype),
        target.new_empty(1 if need_gate else 0, dtype=dtype),
    )


@_fake("patch_replace_backward")
def _(grad, target, source, gate_weight, *rest):
    return _fake_gradients(target, source, gate_weight, *rest[-3:])


@_fake("patch_swap_backward")
def _(grad_target, grad_source, target, source, gate_weight, *rest):
    return _fake_gradients(target, source, gate_weight, *rest[-3:])


# ---------------------------------------------------------------------------------------------------------------------
# Autograd.
# ---------------------------------------------------------------------------------------------------------------------

# The same formulas as autograd functions, by operator. EAGER: they cost a quarter of what registered formulas do per call, which
# only traced graphs need. TRANSFORMABLE: for torch.func (grad, vmap), at a further cost per call.
EAGER: dict[str, type[torch.autograd.Function]] = {}
TRANSFORMABLE: dict[str, type[torch.autograd.Function]] = {}


class RefuseSecondDerivative(torch.autograd.Function):
    """A gradient as it is, with an error where it is differentiated again with respect to what it was computed from.

    For torch.func, which records every backward pass, so that a second derivative shows only where it is taken.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(name, gradient, *tensors):
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx, *grads):
        raise second_derivative_refused(ctx.name)


def _once_differentiable(name, formula):
    def backward(ctx, *grads):
        first_derivative_only(name)
        return formula(ctx, *grads)

    return backward


def _differentiate(name: str, save, formula) -> None:
    """Gives an operator its autograd formula: `save(ctx, inputs, output)` after the forward pass, `formula(ctx, *grads)`."""
    operator, qualified = getattr(ops, name).default, add_op_namespace_prefix(name)
    once = _once_differentiable(qualified, formula)

    def no_forward_mode(ctx, *tangents):
        raise NotImplementedError(
            f"{qualified} has no forward-mode derivative (jvp, jacfwd, hessian): use backward, torch.func.grad or jacrev"
        )

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            with torch._C._AutoDispatchBelowAutograd():
                output = operator(*inputs)
            save(ctx, inputs, output)
            return output

        backward = staticmethod(once)
        jvp = staticmethod(no_forward_mode)

    class Transformable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs):
            return operator(*inputs)

        setup_context = staticmethod(save)
        jvp = staticmethod(no_forward_mode)

        @staticmethod
        def backward(ctx, *grads):
            tensors = [tensor for tensor in (*grads, *ctx.saved_tensors) if tensor is not None]
            return tuple(
                gradient if gradient is None else RefuseSecondDerivative.apply(qualified, gradient, *tensors)
                for gradient in formula(ctx, *grads)
            )

    for functions, function in ((EAGER, Eager), (TRANSFORMABLE, Transformable)):
        function.__name__ = function.__qualname__ = name
        functions[name] = function
    torch.library.register_autograd(qualified, once, setup_context=save, lib=_library)


def _gate_scores_context(ctx, inputs, output):
    tokens, weight, bias = inputs
    ctx.save_for_backward(output, tokens, weight, bias)


def _gate_scores_backward(ctx, grad):
    scores, tokens, weight, bias = ctx.saved_tensors
    need_tokens, need_weight, need_bias = ctx.needs_input_grad
    dtokens, dweight, dbias = ops.gate_scores_backward.default(
        grad.contiguous(), scores, tokens, weight, need_tokens, need_weight or need_bias
    )
    return (
        dtokens if need_tokens else None,
        _like(weight, dweight) if need_weight else None,
        _like(bias, dbias) if need_bias else None,
    )


def _like(parameter, gradient):
    """The gradient in the parameter's shape and type. Nothing is called where it has them: in the backward pass of a large call the
    caches are cold, and each small operation costs ten times what it does alone."""
    if gradient.shape != parameter.shape:
        gradient = gradient.reshape(parameter.shape)
    return gradient if gradient.dtype == parameter.dtype else gradient.to(parameter.dtype)


_differentiate("gate_scores", _gate_scores_context, _gate_scores_backward)


def _gumbel_topk_context(ctx, inputs, output):
    scores, _, _, _, ctx.k, ctx.tau, _, ctx.exact_steps, _ = inputs
    _, _, noisy, indices = output
    ctx.mark_non_differentiable(indices, noisy)
    ctx.save_for_backward(noisy, scores)  # the scores are what a second derivative would be with respect to
    ctx.set_materialize_grads(False)


def _gumbel_topk_backward(ctx, grad_mask, grad_relaxed, _noisy, _indices):
    """Straight-through: the mask's gradient is that of h."""
    noisy, _ = ctx.saved_tensors
    given = [grad for grad in (grad_mask, grad_relaxed) if grad is not None]
    dscores = None
    if given:
        dscores = ops.gumbel_topk_backward.default(
            sum(given[1:], given[0]).contiguous(), noisy, ctx.k, ctx.tau, ctx.exact_steps
        )
    return dscores, *(None,) * 8


_differentiate("gumbel_topk", _gumbel_topk_context, _gumbel_topk_backward)

_NO_GRADIENT = (None,) * 12  # seed and noise, k, the options and the first row


def _save_choice(ctx, inputs, output, target, source):
    """What the backward passes of `patch_replace` and `patch_swap_` need; `target` and `source` as they are after the call."""
    arguments = ReplaceArguments(*inputs)
    ctx.options = arguments.tau, arguments.exact_steps, arguments.highest, arguments.relax
    choice = output[-3:]  # target_index, source_index, scores
    ctx.mark_non_differentiable(*choice)
    if not arguments.relax:
        # The gradient then only moves rows: of the tokens it needs the shapes, and memory that others may write or free.
        target, source = (tokens.new_empty(1).expand(tokens.shape) for tokens in (target, source))
        choice = *choice[:2], choice[2].new_empty(0)
    ctx.save_for_backward(target, source, arguments.gate_weight, arguments.gate_bias, *choice)
    ctx.set_materialize_grads(False)


def _run_backward(ctx, operator, *grads):
    target, source, gate_weight, gate_bias, *choice = ctx.saved_tensors
    need_target, need_source, need_weight, need_bias = ctx.needs_input_grad[:4]
    # Without the relaxation the choice has no gradient: None, since zeros would let an optimizer decay a gate that nothing trains.
    relax = ctx.options[-1]
    need_weight, need_bias = need_weight and relax, need_bias and relax
    grads = (grad if grad is None else grad.contiguous() for grad in grads)
    needs = need_target, need_source, need_weight or need_bias
    dtarget, dsource, dweight, dbias = operator(*grads, target, source, gate_weight, *choice, *ctx.options, *needs)
    return (
        dtarget if need_target else None,
        dsource if need_source else None,
        _like(gate_weight, dweight) if need_weight else None,
        _like(gate_bias, dbias) if need_bias else None,
        *_NO_GRADIENT,
    )


def _patch_replace_context(ctx, inputs, output):
    _save_choice(ctx, inputs, output, inputs[0], inputs[1])


def _patch_replace_backward(ctx, grad, *_):
    if grad is None:
        return None, None, None, None, *_NO_GRADIENT
    return _run_backward(ctx, ops.patch_replace_backward.default, grad)


_differentiate("patch_replace", _patch_replace_context, _patch_replace_backward)


def _patch_swap_context(ctx, inputs, output):
    _save_choice(ctx, inputs, output, output[0], output[1])


def _patch_swap_backward(ctx, grad_target, grad_source, *_):
    if grad_target is None and grad_source is None:
        return None, None, None, None, *_NO_GRADIENT
    if grad_target is None:
        grad_target = torch.zeros_like(ctx.saved_tensors[0])
    return _run_backward(ctx, ops.patch_swap_backward.default, grad_target, grad_source)


_differentiate("patch_swap", _patch_swap_context, _patch_swap_backward)


class PatchSwap(torch.autograd.Function):
    """Autograd of the in-place operator, which `register_autograd` does not cover: it marks both buffers as changed."""

    @staticmethod
    def forward(ctx, *inputs):
        target, source = inputs[:2]
        with torch._C._AutoDispatchBelowAutograd():
            output = ops.patch_swap_.default(*inputs)
        ctx.mark_dirty(target, source)
        _save_choice(ctx, inputs, output, target, source)
        return target, source, *output

    backward = staticmethod(_once_differentiable(add_op_namespace_prefix("patch_swap_"), _patch_swap_backward))
    jvp = EAGER["patch_swap"].jvp


def _count_versions(keyset, target, source, *arguments):
    """What PyTorch's own in-place operators do in between: autograd must notice that what it saved has changed."""
    check_changeable("target", target)
    check_changeable("source", source)
    torch.autograd.graph.increment_version((target, source))
    with torch._C._AutoDispatchBelowADInplaceOrView():
        return ops.patch_swap_.default.redispatch(
            keyset & torch._C._after_ADInplaceOrView_keyset, target, source, *arguments
        )


_library.impl("patch_swap_", _count_versions, "ADInplaceOrView", with_keyset=True)


# ---------------------------------------------------------------------------------------------------------------------
# Kernels: Triton for CUDA, imported at its first call; C++ for the CPU, imported now.
# ---------------------------------------------------------------------------------------------------------------------

_triton.register(_library)


def _load_extension() -> str | None:
    """Imports the C++ kernels, which registers them. Returns why they are not used, or None when they are."""
    if hasattr(ops, "cpu_capability"):  # loaded by the `_ops.py` of a build for the kernel hub
        _check_signatures()
        _check_instruction_set()
        return None
    if __package__ != "pare_kernels":
        return "not part of this build for the kernel hub"
    if os.environ.get("PARE_KERNELS_NO_EXT") == "1":
        return "switched off by PARE_KERNELS_NO_EXT=1"
    try:
        importlib.import_module("._C", __package__)
    except ImportError as error:
        if error.name == f"{__package__}._C":
            reason = "not built: install with a C++ compiler at hand (pip install --no-build-isolation .)"
        else:
            reason = f"could not be loaded: {error}"
        warnings.warn(f"pare_kernels: the C++ kernels are {reason}; the slower reference serves the CPU", stacklevel=2)
        return reason
    _check_signatures()
    _check_instruction_set()
    return None


def _check_signatures() -> None:
    """Refuses kernels that were built from other sources: what is registered stays, and its calls would fail one by one."""
    letters = {"Tensor": "t", "Optional[Tensor]": "o", "int": "i", "SymInt": "i", "float": "f", "bool": "b"}
    built = dict(line.split() for line in ops.signatures().splitlines()) if hasattr(ops, "signatures") else {}
    expected = {
        name: "".join(letters[str(argument.type)] for argument in getattr(ops, name).default._schema.arguments)
        for name in _triton.OPERATORS
    }
    if built != expected:
        path = getattr(sys.modules.get(f"{__package__}._C"), "__file__", "of this build")
        differ = ", ".join(sorted(name for name in expected if built.get(name) != expected[name]))
        raise ImportError(
            f"pare_kernels: the C++ kernels ({path}) were built from other sources than the Python beside them: {differ} differ. "
            "Build them again, with `pip install --no-build-isolation .` in the sources, or delete the file"
        )


def _check_instruction_set() -> None:
    wanted, used = os.environ.get("PARE_KERNELS_CPU"), ops.cpu_capability()
    if wanted and wanted != used:
        warnings.warn(
            f"pare_kernels: PARE_KERNELS_CPU={wanted} is none of the instruction sets that this CPU has kernels for "
            f"(baseline, avx2, avx512, as far as it goes); {used} serves",
            stacklevel=4,
        )


EXTENSION_PROBLEM = _load_extension()
