"""One interface over pretrained transformers: ``embed`` a new modality, run the pretrained ``body`` on its tokens."""

from crossmodal.models.encoders.base import Encoder
from crossmodal.models.encoders.catalogue import available, from_spec, load, modality

__all__ = ["Encoder", "available", "from_spec", "load", "modality"]
