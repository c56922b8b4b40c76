from __future__ import annotations

import numpy as np
import pytest

from crossmodal import drawing
from crossmodal.report import comparison_pictures as plots


def test_comparison_draws_every_run_and_a_line_for_what_has_no_seeds(tmp_path):
    methods = {
        "pare": {"label": "pare", "seeded": True, "mean": 2.0, "errors": [1.0, 3.0]},
        "nft": {"label": "nft", "seeded": True, "mean": None, "errors": [2.5, None]},
        "linear": {"label": "logistic regression", "seeded": False, "mean": 1.5, "errors": [1.5]},
    }
    figure = plots.comparison({"toy": {"methods": methods, "label": "error %", "protocol": "default"}})
    (axis,) = figure.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in axis.lines]
    assert drawn[0] == [1.0, 3.0]
    assert drawn[1] == pytest.approx([2.5, np.nan], nan_ok=True)
    assert drawn[2] == [1.5, 1.5]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["pare", "nft"]
    drawing.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
