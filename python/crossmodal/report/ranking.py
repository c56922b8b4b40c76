"""Methods ranked by what came of each test sample: which are told apart by these data, which are not, and what would be needed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from crossmodal.naming import counted
from crossmodal.report.statistics import LEVEL, Paired, compared, holm, units_needed
from crossmodal.scoring.metric import FEWEST
from crossmodal.training.outcomes import Outcomes


def rank(found: dict[str, list[Outcomes]]) -> dict[str, Any]:
    """Compares every two methods by a paired bootstrap over the test samples, or over their groups.

    A method's figure is the mean of those of its seeds, all of them scored in each resample. So what is said holds for other test
    samples of this kind, and for these very runs.

    Args:
        found: by method, the outcomes of its runs, all on the same test samples.

    Returns:
        `metric`, `units` of `over` ("samples" or "groups"); `order`, best first; `values` by method; `pairs`, each with the
        `better` by figure, the `worse`, `gain`, `interval` (95 %), `p` and `adjusted` (Holm, all pairs); `needed`: how many units
        would tell the two best apart, see `units_needed`, None where they are or nothing can be said.
    """
    runs = list(itertools.chain(*found.values()))
    first, metric = runs[0], runs[0].measure
    figures, units = metric.resampled([one.numbers for one in runs], first.units, first.fold)
    owner = np.repeat(np.arange(len(found)), list(map(len, found.values())))
    drawn = np.stack([figures[:, owner == place].mean(1) for place in range(len(found))], axis=1)
    values = {
        name: float(np.mean([metric.over_folds(one.numbers, one.fold) for one in ones])) for name, ones in found.items()
    }
    sign = 1 if metric.higher_is_better else -1
    usable = [name for name in found if np.isfinite(values[name])]
    order = sorted(usable, key=lambda name: -sign * values[name])
    column = {name: drawn[:, place] for place, name in enumerate(found)}
    pairs: list[tuple[str, str, Paired]] = [
        (one, other, compared(sign * (values[one] - values[other]), sign * (column[one] - column[other]), units))
        for one, other in itertools.combinations(order, 2)
    ]
    adjusted = holm([1.0 if pair.p is None else pair.p for _, _, pair in pairs])
    told = [
        {
            "better": one,
            "worse": other,
            "gain": pair.mean,
            "interval": pair.interval,
            "p": pair.p,
            "adjusted": None if pair.p is None else p,
        }
        for (one, other, pair), p in zip(pairs, adjusted, strict=True)
    ]
    apart = not told or told[0]["adjusted"] is None or told[0]["adjusted"] < LEVEL
    return {
        "metric": first.metric,
        "over": "samples" if first.group is None and not metric.grouped else "groups",
        "units": units,
        "order": order,
        "values": values,
        "pairs": told,
        "needed": None if apart else units_needed(pairs[0][2], units),
    }


def render(task: str, ranking: dict[str, Any]) -> str:
    """The ranking as Markdown."""
    order, pairs, over, units = (ranking[key] for key in ("order", "pairs", "over", "units"))
    of_pair = {(pair["better"], pair["worse"]): pair for pair in pairs}
    lines = [
        f"{task}: ranked by test {ranking['metric']}, each two compared by a paired bootstrap over "
        f"{counted(units, f'test {over}')}",
        "",
        f"| method | {ranking['metric']} | behind {order[0]} by | 95 % interval | p, Holm | told apart from |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in order:
        pair = of_pair.get((order[0], name))
        told = [other for other in order if any(_told(of_pair.get(both)) for both in ((name, other), (other, name)))]
        label = ranking.get("called", {}).get(name, name)  # as in the table of the comparison
        cells = [
            name if label == name else f"{name} ({label})",
            f"{ranking['values'][name]:.4g}",
            "",
            "",
            "",
            ", ".join(told),
        ]
        if pair:
            low, high = pair["interval"] or (np.nan, np.nan)
            cells[2] = f"{pair['gain']:.3g}"
            cells[3] = "" if pair["interval"] is None else f"{low:.3g} to {high:.3g}"
            cells[4] = "" if pair["adjusted"] is None else f"{pair['adjusted']:.2g}"
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_said(ranking, of_pair)]
    return "\n".join(lines) + "\n"


def _told(pair: dict[str, Any] | None) -> bool:
    return pair is not None and pair["adjusted"] is not None and pair["adjusted"] < LEVEL


def _said(ranking: dict[str, Any], of_pair: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """What these data tell apart, in sentences."""
    order, over, units = ranking["order"], ranking["over"], ranking["units"]
    if len(order) < 2:
        return ["Nothing to compare: a single method has a figure."]
    first = of_pair[order[0], order[1]]
    if first["p"] is None:
        if units >= FEWEST:
            return [f"{ranking['metric']} has no interval, so methods are not told apart."]
        return [f"Too few test {over} ({units}) to tell methods apart; --split.folds tests on all {over}."]
    alike = [name for name in order[1:] if not _told(of_pair[order[0], name])]
    if not alike:
        return [f"{order[0]} is told apart from all others by these data (p < {LEVEL} after Holm's correction)."]
    lines = [f"Not told apart from {order[0]} by these data: {', '.join(alike)}."]
    if _told(first):
        return lines
    if ranking["needed"] is None:
        lines.append(f"{order[0]} and {order[1]} differ by nothing here, so no number of {over} can be named.")
    else:
        lines.append(
            f"About {ranking['needed']} test {over} instead of {units} would tell {order[0]} from {order[1]} four times in five, "
            f"if the true difference is the {first['gain']:.3g} found here, further {over} vary like these, and no other "
            "pair is tested."
        )
    return lines
