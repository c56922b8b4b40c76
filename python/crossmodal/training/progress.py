"""What a person sees while a run goes on: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

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

    def step(self, loss: float, lr: float, said: dict[str, Any], samples_per_second: float) -> None:
        """After each optimizer step. said: what the objective says of this epoch; its whole numbers are shown."""
        if self.terminal:
            epoch = self._bar.n * self.epochs // max(self.steps, 1) + 1
            parts = [f"loss {loss:#.3g}", self._validation, *_whole_numbers(said), f"lr {lr:.1e}"]
            parts.append(f"{samples_per_second:.0f} samples/s")
            self._bar.set_description_str(f"epoch {epoch}/{self.epochs}", refresh=False)
            self._bar.set_postfix_str(", ".join(part for part in parts if part), refresh=False)
            self._bar.update()

    def epoch(self, record: dict[str, Any], said: dict[str, Any]) -> None:
        """After each epoch, with its record and what the objective says of it."""
        validated = "validation" in record
        self._validation = f"{self.metric} {record['validation']:#.3g}" if validated else None
        if not self.enabled or self.terminal:
            return
        parts = [f"epoch {record['epoch']}/{self.epochs}", f"loss {record['loss']:#.4g}"]
        if validated:
            parts.append(f"validation {self.metric} {record['validation']:#.4g}")
        parts += [
            *_whole_numbers(said),
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


def _whole_numbers(said: dict[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in said.items() if isinstance(value, int)]


def duration(seconds: float) -> str:
    """`12 s`, `3.5 min`, `7.2 h`."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
