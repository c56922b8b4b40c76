"""What a person sees while a run goes on: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from tqdm import tqdm


class Progress:
    """Shows how far a run is.

    Args:
        steps, epochs: of the whole run.
        metric: name of the validation metric.
        start: steps already done.
        enabled: whether anything is shown (one process of several talks).
    """

    def __init__(self, steps: int, epochs: int, metric: str, start: int = 0, enabled: bool = True) -> None:
        self.steps, self.epochs, self.metric, self.enabled = steps, epochs, metric, enabled
        self.start, self.began = start, time.perf_counter()
        self.terminal = enabled and sys.stderr.isatty()
        layout = "{desc} |{bar}| {remaining} left{postfix}"
        self._bar = tqdm(
            total=steps,
            initial=start,
            dynamic_ncols=True,
            bar_format=layout,
            disable=not self.terminal,
            file=sys.stderr,
        )
        self._validation: str | None = None

    def step(self, loss: float, lr: float, k: int | None, samples_per_second: float) -> None:
        """After each optimizer step."""
        if self.terminal:
            epoch = self._bar.n * self.epochs // max(self.steps, 1) + 1
            parts = [f"loss {loss:#.3g}", self._validation, None if k is None else f"k {k}", f"lr {lr:.1e}"]
            parts.append(f"{samples_per_second:.0f} samples/s")
            self._bar.set_description_str(f"epoch {epoch}/{self.epochs}", refresh=False)
            self._bar.set_postfix_str(", ".join(part for part in parts if part), refresh=False)
            self._bar.update()

    def epoch(self, record: dict[str, Any]) -> None:
        """After each epoch, with its record."""
        self._validation = f"{self.metric} {record['validation']:#.3g}"
        if not self.enabled or self.terminal:
            return
        parts = [f"epoch {record['epoch']}/{self.epochs}", f"loss {record['loss']:#.4g}"]
        parts.append(f"validation {self.metric} {record['validation']:#.4g}")
        if record.get("k") is not None:
            parts.append(f"k {record['k']}")
        parts += [
            f"lr {record['lr']:.1e}",
            f"{record['samples_per_second']:.0f} samples/s",
            f"left {self._left(record['step'])}",
        ]
        print("  ".join(parts), flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.enabled:
            tqdm.write(text) if self.terminal else print(text, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _left(self, step: int) -> str:
        done = max(step - self.start, 1)
        return duration((time.perf_counter() - self.began) / done * (self.steps - step))


def duration(seconds: float) -> str:
    """`12 s`, `3.5 min`, `7.2 h`."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


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
