"""CIFAR-100 (Krizhevsky, 2009): photographs of 32 x 32 pixels, 100 classes. The one task of NAS-Bench-360 whose modality image
encoders know."""

from __future__ import annotations

from crossmodal.data.download import Remote
from crossmodal.data.readers import cifar
from crossmodal.errors import UserError
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

CLASSES = 100
BATCH = 32
# Mean and deviation of each colour, from 0 to 255: those of the public code, 0.5071 and so on.
COLOURS = tuple((255 * mean, 255 * std) for mean, std in ((0.5071, 0.2675), (0.4867, 0.2565), (0.4408, 0.2761)))
FILES = tuple(
    Remote(
        f"cifar-100-python/{name}",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        169_001_437,
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
        unpack="",
        how="the python version of CIFAR-100, of which several places keep a copy",
    )
    for name in ("train", "test", "meta")
)


@register(
    "cifar100",
    "photographs (3 x 32 x 32), 100 classes; 50,000 train, 10,000 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def cifar100(options: Options) -> RawTask:
    """A fifth of the training samples validates, as in NAS-Bench-360."""
    folder = options.data_dir / "cifar-100-python"
    names = cifar.read_names(folder / "meta", "fine_label_names")
    if len(names) != CLASSES:
        raise UserError(f"{folder / 'meta'}: expected {CLASSES} names of classes, got {len(names)}")
    raw = RawTask(
        kind="classification",
        **_public.parts(
            **{name: cifar.read_batch(folder / name, "fine_labels", CLASSES) for name in ("train", "test")}
        ),
        class_names=names,
        origin=str(folder),
        normalize_x=COLOURS,
    )
    if options.protocol == "released":
        return _public.released(raw, ("accuracy",), batch_size=BATCH)
    return raw
