"""Started by `test_trainer`: train.py, with graphs traced and differentiated as ever but not turned into machine code.

Generating and compiling code takes most of a minute, and that part does not depend on how the model is distributed.
"""

import functools
import sys

import torch
from torch._dynamo.utils import counters

from crossmodal.cli import train

if __name__ == "__main__":
    torch.compile = functools.partial(torch.compile, backend="aot_eager")
    code = train()
    print(f"{counters['aot_autograd']['ok']} graphs compiled")
    sys.exit(code)
