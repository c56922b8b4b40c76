"""Distances between labelled data sets, and labels for data that have none."""

from crossmodal.alignment.distances import DISTANCES, Labelled, l2, label_distances, mmd, otdd
from crossmodal.alignment.labels import Labeller

__all__ = ["DISTANCES", "Labelled", "Labeller", "l2", "label_distances", "mmd", "otdd"]
