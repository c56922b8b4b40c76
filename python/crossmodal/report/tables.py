"""Tables that a person reads."""

from __future__ import annotations

import math
from typing import Any

from crossmodal.training.progress import duration


def closing_table(results: dict[str, Any], select: str) -> str:
    """What a run came to, in a few lines: figures of the splits, the epoch that was kept, how long it took.

    Args:
        results: what `results.json` holds.
        select: how the epoch was chosen.
    """
    rows = {
        results["metric"]: [f"{results[split]:#.4g}" for split in ("validation", "test")],
        "loss": [f"{results[split]:#.4g}" for split in ("validation_loss", "test_loss")],
        "samples": [str(results["samples"][split]) for split in ("validation", "test")],
    }
    width = max(map(len, rows))
    lines = [f"{'':{width}} {'validation':>12} {'test':>12}"]
    lines += [f"{name:{width}} {validation:>12} {test:>12}" for name, (validation, test) in rows.items()]
    if select == "metric" and math.isnan(results["validation"]):
        select = f"loss, because validation {results['metric']} is NaN in every epoch"
    lines.append(
        f"weights of epoch {results['best_epoch']} of {results['epochs']} (select: {select}); "
        f"{results['steps']} steps in {duration(results['seconds'])}"
    )
    return "\n".join(lines)
