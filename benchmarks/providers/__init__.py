"""Every way to compute an operation: ours, the paper's, and the rivals'. Importing this package registers them."""

from benchmarks.providers import ours, parts, rivals  # noqa: F401  (importing registers)
from benchmarks.providers.base import PROVIDERS, Provider, providers_of, register

__all__ = ["PROVIDERS", "Provider", "providers_of", "register"]
