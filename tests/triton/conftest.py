"""Without a GPU its tests are not collected: `tests/triton/on_device` and the tests of the operators run in the interpreter."""

import torch

if not torch.cuda.is_available():
    collect_ignore = ["test_gpu.py"]
