"""What is measured: shapes of real tasks, and the suites made of them. The only place where a benchmark shape is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.heap import FRESH, KEPT

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Case:
    """One shape of the operator: B samples, Nt target and Ns source patches of D features, k of them replaced."""

    name: str
    origin: str
    batch: int
    num_target: int
    num_source: int
    dim: int
    k: int
    dtype: str = "float32"
    tau: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.k <= min(self.num_target, self.num_source):
            raise ValueError(f"case {self.name!r}: k must be between 0 and both patch counts, got {self.k}")
        if self.dtype not in DTYPES:
            raise ValueError(f"case {self.name!r}: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def with_(self, **changes) -> Case:
        return replace(self, **changes)

    @property
    def shape(self) -> str:
        return shape_in_words(self)


def shape_in_words(of) -> str:
    """The shape of a case, or of the row of the records that has its numbers."""
    source = "" if of.num_source == of.num_target else f", Ns {of.num_source}"
    return f"B {of.batch}, N {of.num_target}{source}, D {of.dim}, k {of.k}"


CASES = {
    case.name: case
    for case in (
        Case("swin-2000", "Swin-base at 224, first epochs", 8, 3136, 3136, 128, 2000),
        Case("swin-500", "Swin-base at 224, last epochs", 8, 3136, 3136, 128, 500),
        Case("short", "64 patches as wide as RoBERTa-base", 64, 64, 64, 768, 32),
        Case("ecg", "ECG, RoBERTa-base", 64, 50, 32, 768, 16),
        Case("satellite", "Satellite, RoBERTa-base", 64, 46, 32, 768, 16),
        Case("deepsea", "DeepSEA, RoBERTa-base", 16, 500, 32, 768, 16),
        Case("advection", "Advection, RoBERTa-base", 16, 256, 32, 768, 16),
        Case("vit", "ViT-base at 224", 16, 196, 196, 768, 98),
        Case("long", "a long sequence", 2, 16384, 16384, 64, 8192),
        Case("tiny", "nothing but the cost of a call", 1, 8, 8, 8, 4),
    )
}

# How cost grows: one quantity at a time. Short of `GROWTH_EXACT_LIMIT` patches the exact form is measured too; beyond it
# the float64 definition, against which it is checked first, takes minutes.
GROWTH_EXACT_LIMIT = 4096
SIZE_OF = {"N": "num_target", "k": "k", "B": "batch", "D": "dim"}
_GROWTH_BASE = Case("growth", "", 2, 1024, 1024, 64, 512)
GROWTH = {
    "N": [_GROWTH_BASE.with_(num_target=n, num_source=n, k=n // 2) for n in (64, 256, 1024, 4096, 16384)],
    "k": [_GROWTH_BASE.with_(num_target=3136, num_source=3136, batch=1, k=k) for k in (32, 125, 500, 1000, 2000, 3000)],
    "B": [_GROWTH_BASE.with_(batch=b, num_target=196, num_source=196, k=98) for b in (4, 16, 64, 256)],
    "D": [_GROWTH_BASE.with_(dim=d) for d in (16, 64, 256, 1024)],
}


@dataclass(frozen=True)
class Plan:
    """One table of a run: providers of one operation on one case, interleaved in one process.

    sweep: the quantity of `GROWTH` that this plan is a point of, or "".
    heap: how large blocks of memory are treated, see `benchmarks.heap`.
    """

    case: Case
    operation: str
    providers: tuple[str, ...]
    threads: int = 1
    sweep: str = ""
    heap: str = KEPT

    def with_(self, **changes) -> Plan:
        return replace(self, **changes)


_OURS = ("pare", "pare-exact", "pare-inplace")
_EVERY_REPLACE = (
    *_OURS,
    "pare-inplace-exact",
    "reference",
    "paper",
    "paper-batched",
    "eager-closed",
    "eager-closed-manual",
    "compile-batched",
    "compile-closed",
    "compile-closed-manual",
    "sigmoid",
    "lapsum",
)
_SHORT_LIST = (*_OURS, "paper", "eager-closed-manual")
_PARTS = {
    "forward": ("pare", "topk-gather", "compile-topk-gather"),
    "swap": ("pare", "pare-inplace", "index_copy", "index_copy-inplace", "scatter", "where"),
    "pairs": ("pare", "topk-gather"),
    "select": ("pare", "topk", "topk-sorted"),
    "sampler": ("pare", "pare-exact", "paper", "batched", "closed", "closed-manual", "sigmoid", "lapsum"),
    "scores": ("pare", "linear", "mv"),
}


def _growth() -> list[Plan]:
    plans = []
    for quantity, cases in GROWTH.items():
        for case in cases:
            exact = case.num_target <= GROWTH_EXACT_LIMIT and quantity in ("N", "k")
            providers = ("pare", *(["pare-exact"] if exact else []), "eager-closed-manual")
            name = f"growth-{quantity}-{getattr(case, SIZE_OF[quantity])}"
            plans.append(Plan(case.with_(name=name), "replace", providers, sweep=quantity))
    return plans


def _scaling() -> list[Plan]:
    case = CASES["swin-2000"].with_(name="swin-2000-B32", batch=32)
    return [Plan(case, "replace", ("pare", "pare-inplace"), threads=count) for count in (1, 2)]


def _standard() -> list[Plan]:
    headline = [Plan(CASES[name], "replace", _EVERY_REPLACE) for name in ("swin-2000", "short")]
    # Long rows come last: the paper's algorithm keeps thousands of steps of them, and the heap that this leaves, though given back,
    # serves large blocks as a fresh process would not.
    fresh = [Plan(CASES[name], "replace", _SHORT_LIST, heap=FRESH) for name in ("ecg", "vit")]
    fresh += [plan.with_(heap=FRESH) for plan in reversed(headline)]
    tasks = [Plan(CASES[name], "replace", _SHORT_LIST) for name in ("swin-500", "ecg", "satellite", "deepsea")]
    tasks += [Plan(CASES[name], "replace", _SHORT_LIST) for name in ("advection", "vit")]
    tasks += [Plan(CASES["long"], "replace", ("pare", "pare-inplace", "eager-closed-manual"))]
    half = [
        Plan(CASES[name].with_(name=f"{name}-bf16", dtype="bfloat16"), "replace", _SHORT_LIST)
        for name in ("swin-2000", "vit")
    ]
    parts = [Plan(CASES["swin-2000"], operation, providers) for operation, providers in _PARTS.items()]
    parts += [Plan(CASES["short"], operation, _PARTS[operation]) for operation in ("swap", "sampler", "scores")]
    return [*fresh, *headline, *tasks, *half, *parts, *_scaling(), Plan(CASES["tiny"], "overhead", ()), *_growth()]


def _full() -> list[Plan]:
    plans = []
    for case in (case for case in CASES.values() if case.name != "tiny"):
        for dtype in ("float32", "bfloat16"):
            name = case.name if dtype == "float32" else f"{case.name}-bf16"
            typed = case.with_(name=name, dtype=dtype)
            plans += [
                Plan(typed, operation, ()) for operation in ("replace", "swap", "pairs", "select", "sampler", "scores")
            ]
    return [*plans, *_scaling(), Plan(CASES["tiny"], "overhead", ()), *_growth()]


# Providers () means all that are registered for the operation.
SUITES = {
    "quick": lambda: [
        Plan(CASES["ecg"], "replace", _SHORT_LIST),
        Plan(CASES["tiny"], "overhead", ()),
    ],
    "standard": _standard,
    "growth": _growth,
    "full": _full,
}
