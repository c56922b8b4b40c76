"""The namespace in which the raw operators are registered.

Builds for the kernel hub, several of which may be loaded into one process, bring a file of their own in the place of this one, with
the same two names; so nothing else spells the namespace.
"""

import torch

ops = torch.ops.pare_kernels


def add_op_namespace_prefix(op_name: str) -> str:
    return f"pare_kernels::{op_name}"
