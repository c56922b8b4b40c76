"""What the searches of NAS-Bench-360 (Tu et al., NeurIPS 2022) found, as its repository prints it.

Cells: github.com/rtu715/NAS-Bench-360, darts/gaea/eval/searched_genotypes.py (spherical), darts/gaea-dense/model_def.py
(darcy_flow, psicov, cosmic),
darts_1d/gaea/eval/searched_genotypes.py (ecg, satellite); the search with seed 2 where there are several. Of dense
targets there are no reduction cells. Blocks: densenas/point/scripts/eval/FSD50k.yaml, the random search. Hyperparameters:
backbone/scripts/{cifar100,ninapro}_retrain.yaml.
"""

from __future__ import annotations


def _cell(text: str) -> list[tuple[str, int]]:
    """`max3 0, sep5 1`, by the operation and where it starts."""
    names = {"max": "max_pool_", "avg": "avg_pool_", "sep": "sep_conv_", "dil": "dil_conv_", "skip": "skip"}
    found = []
    for one in text.split(", "):
        name, start = one.split()
        kind = name.rstrip("35")
        found.append((names[kind] + name[len(kind) :], int(start)))
    return found


GENOTYPES = {
    "spherical": {
        "normal": _cell("max3 0, max3 1, avg3 0, max3 2, max3 3, max3 2, max3 0, max3 2"),
        "reduce": _cell("avg3 1, skip 0, max3 1, dil5 0, max3 1, max3 0, max3 1, dil5 0"),
    },
    "darcy_flow": {"normal": _cell("dil3 1, dil3 0, dil3 2, dil3 0, dil5 3, sep5 1, dil5 4, max3 1")},
    "psicov": {"normal": _cell("dil3 0, skip 1, sep3 1, skip 0, sep5 2, dil5 0, skip 0, dil3 3")},
    "cosmic": {"normal": _cell("max3 0, dil5 1, dil3 0, skip 2, sep5 2, sep5 0, sep3 1, sep5 0")},
    "ecg": {
        "normal": _cell("dil5 1, dil5 0, dil5 2, dil3 0, dil5 3, dil5 2, dil5 4, sep3 0"),
        "reduce": _cell("sep5 1, sep5 0, dil5 2, sep5 0, dil5 2, dil5 3, dil5 4, dil5 3"),
    },
    "satellite": {
        "normal": _cell("dil5 0, dil5 1, dil5 0, dil5 2, dil5 0, avg3 3, sep5 2, dil5 0"),
        "reduce": _cell("dil3 0, max3 1, dil5 2, avg3 0, dil5 3, avg3 1, sep5 3, dil5 2"),
    },
}

# Channels, residual layers and stride.
BLOCKS = {"fsd50k": [(64, 1, 2), (112, 2, 2), (176, 2, 2), (224, 1, 1)]}

USUAL = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "dropout": 0.0, "batch_size": 128}
HYPERPARAMETERS = {"cifar100": USUAL, "ninapro": USUAL}

FOUND = {"wide_resnet": HYPERPARAMETERS, "cells": GENOTYPES, "blocks": BLOCKS, "controller": {}}
