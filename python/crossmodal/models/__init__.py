"""Networks: pretrained encoders with what fine-tuning puts around them, and others; saved and loaded alike."""

from crossmodal.models.base import Model, ParameterGroups, load

__all__ = ["Model", "ParameterGroups", "load"]
