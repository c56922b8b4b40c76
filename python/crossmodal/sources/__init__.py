"""Source data: labelled samples of the modality the encoder was pretrained on.

``load("scipy_docs", encoder=encoder, num_tokens=12)`` gives a :class:`Source`; ``available()`` lists the built-in names,
and a path reads the user's own text file or folder of images.
"""

from crossmodal.sources.base import Source, available, load

__all__ = ["Source", "available", "load"]
