"""The device axis of the operator's tests, and what all of them share."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() and not INTERPRETED else [])]

if INTERPRETED:
    # CPU tensors go to the Triton operators, which run in Triton's interpreter (`tests/triton/test_interpreted.py`).
    from pare_kernels import _triton

    _route = torch.library.Library("pare_kernels", "IMPL")
    _triton.register(_route, "CPU")

    # The interpreter cuts bfloat16 off where compiled kernels round to the nearest.
    from triton.runtime import interpreter

    _convert = interpreter._convert_float

    def _convert_rounding(values, input_dtype, output_dtype, rounding_mode):
        if input_dtype.is_fp32() and output_dtype.is_bf16():
            return torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
        return _convert(values, input_dtype, output_dtype, rounding_mode)

    interpreter._convert_float = _convert_rounding

    # It combines the elements of a reduction one after the other, in Python: a millisecond each, and an exact step of a row has
    # two or more reductions. Compiled kernels combine halves, as here.
    def _reduce_halves(self, parts):
        kinds, data = [part.dtype for part in parts], [part.handle.data for part in parts]
        while (half := len(data[0]) // 2) > 0:
            ends = [x[:half] for x in data], [x[half:] for x in data]
            halves = [self.to_tensor(x, kind) for end in ends for x, kind in zip(end, kinds, strict=True)]
            data = [part.handle.data for part in self.combine_fn.fn(*halves)]
        return [self.to_tensor(x.item(), kind) for x, kind in zip(data, kinds, strict=True)]

    interpreter.ReduceOps.generic_reduce = _reduce_halves


@pytest.hookimpl(tryfirst=True)  # before `-m gpu` chooses
def pytest_collection_modifyitems(items):
    for item in items:
        device = item.callspec.params.get("device") if hasattr(item, "callspec") else None
        if device == "cuda":
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(params=DEVICES)
def device(request):
    """The device under test, which is also where tensors are made that name none. A test file asks for it as a whole."""
    with torch.device(request.param) as device:
        yield device


@pytest.fixture(autouse=True)
def _poisoned_empty(request):
    """Fills every uninitialized tensor with NaN (or the largest integer), so that a partly written output shows."""
    if request.node.get_closest_marker("clean_empty"):
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
