"""One interface over pretrained transformers: ``embed`` a new modality, run the pretrained ``body`` on its tokens."""

from crossmodal.encoders.base import Encoder
from crossmodal.encoders.catalogue import available, from_spec, load, modality

__all__ = ["Encoder", "available", "from_spec", "load", "modality"]
