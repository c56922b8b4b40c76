"""What is minimised, and how good predictions are: losses, metrics, and protocols of evaluation."""

from crossmodal.scoring import losses, metrics, protocols

__all__ = ["losses", "metrics", "protocols"]
