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
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=not self.terminal)
        self._shown: dict[str, str] = {}

    def step(self, loss: float, lr: float, k: int | None, samples_per_second: float) -> None:
        """After each optimizer step."""
        if self.terminal:
            self._shown.update(loss=f"{loss:.3f}", lr=f"{lr:.1e}", rate=f"{samples_per_second:.0f}/s")
            if k is not None:
                self._shown["k"] = str(k)
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update()

    def epoch(self, record: dict[str, Any]) -> None:
        """After each epoch, with its record."""
        self._shown[self.metric] = f"{record['validation']:.4f}"
        if not self.enabled or self.terminal:
            return
        parts = [f"epoch {record['epoch'] + 1}/{self.epochs}", f"loss {record['loss']:.4f}"]
        parts.append(f"validation {self.metric} {record['validation']:.4f}")
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
        seconds = (time.perf_counter() - self.began) / done * (self.steps - step)
        return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
