"""A device that is none: its tensors say that they lie on `simulated:0`, and are computed on the CPU.

What was only ever trained on a CPU breaks on a GPU first of all where a tensor was left behind: here tensors of the two fail to
meet as they do there. Kernels, streams, autocast and memory of a device are not simulated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._device import _device_constructors
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "simulated"
aten = torch.ops.aten
ACROSS = {aten.copy_.default, aten._to_copy.default}
INDEXED = {  # their first argument by indices, which may lie on the CPU
    *(aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default),
    *(aten._index_put_impl_.default, aten._unsafe_index_put.default),
}


class OnDevice(Tensor):
    """A tensor of the device, and what it holds: one of the CPU with the same values.

    Attributes:
        made: how many there have been.
    """

    made = 0

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "layout": held.layout}
        return Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=f"{NAME}:0", **layout)

    def __init__(self, held: Tensor) -> None:
        self.held = held
        OnDevice.made += 1

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **unused: Any) -> str:
        return f"OnDevice({self.held})"


class _Factories(TorchDispatchMode):
    """Sees the operations, too, that are given no tensor of the device: those which make one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _compute(function, args: tuple, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    if here and function not in ACROSS:
        others = args[2:3] if function in INDEXED and isinstance(args[0], OnDevice) else tensors
        if any(isinstance(one, Tensor) and not isinstance(one, OnDevice) and one.ndim for one in others):
            raise RuntimeError(f"tensors of {NAME}:0 and of the CPU meet in {function}")
    asked = kwargs.get("device")
    there = bool(here) if asked is None else torch.device(asked).type == NAME
    if function is aten.copy_.default:
        there = isinstance(args[0], OnDevice)
    if here and torch.Tag.inplace_view in function.tags:
        # Shape and strides of the wrapper change with those of what it holds.
        with no_dispatch():
            function(here[0], *args[1:], **kwargs)
    wrappers = {id(tensor.held): tensor for tensor in here}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, OnDevice) else value, (args, kwargs))
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    found = function(*args, **kwargs)
    if function is aten._to_copy.default and any(found is tensor for tensor in tensors):
        found = found.clone()

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not there:
            return value
        return wrappers[id(value)] if id(value) in wrappers else OnDevice(value)

    return tree_map(wrapped, found)


@contextlib.contextmanager
def simulated() -> Iterator[torch.device]:
    """The device, which is there while this lasts."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch, sdpa_kernel(SDPBackend.MATH), _Factories():
        _device_constructors()  # kept from the first call on: with the functions as they are
        # Neither asks for operations that could be seen; reading files does not go through them either.
        patch.setattr(torch, "tensor", _made_here(torch.tensor))
        patch.setattr(torch, "as_tensor", _made_here(torch.as_tensor))
        for name in ("asarray", "load"):
            patch.setattr(torch, name, _unseen(getattr(torch, name)))
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield torch.device(NAME, 0)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swapped)


def _made_here(function):
    def make(*args, device=None, requires_grad=False, **kwargs):
        if device is None or torch.device(device).type != NAME:
            return function(*args, device=device, **kwargs).requires_grad_(requires_grad)
        return function(*args, **kwargs).to(device).requires_grad_(requires_grad)

    return make


def _unseen(function):
    def call(*args, **kwargs):
        with no_dispatch():
            return function(*args, **kwargs)

    return call
