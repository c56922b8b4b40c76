"""What every method leaves: a module that predicts, saved as safetensors with a description from which it is rebuilt."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossmodal.errors import MissingPackage, UserError
from crossmodal.files import digest, read_json, replacing, write_json, writing

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
FORMAT = 2

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ParameterGroups(NamedTuple):
    """Trainable parameters for two learning rates: ``encoder``, what comes from pretrained weights, by layer (or another part that
    learns apart from the rest, as weights of an architecture); ``new``, what does not.

    ``encoder[0]`` is the embedding (class tokens, and what the embedder copied), ``encoder[i]`` layer i with what follows it up to
    the next one.
    """

    encoder: list[list[nn.Parameter]]
    new: list[nn.Parameter]


class Model(nn.Module):
    """A network from normalised samples ``(B, *input_shape)`` to outputs: logits ``(B, K)`` of classes or labels, normalised
    values ``(B, R)``, or a normalised field ``(B, Cout, ...)``.

    A subclass gives its name in files (``class FNO(Model, name="fno")``). It is rebuilt with the arguments that its constructor was
    called with; where these are no JSON values, it has a :meth:`spec` of its own.

    Attributes:
        arguments: of the constructor, by name.
        chosen: what a method found before the network was trained, for results.json.
        unsaved: prefixes of tensors that are not needed to predict and stay out of the file.
        gives_every_frame: whether the outputs of a roll-out are all its frames, instead of the next one.
    """

    registry: ClassVar[dict[str, type[Model]]] = {}
    name: ClassVar[str]
    unsaved: ClassVar[tuple[str, ...]] = ()
    gives_every_frame: ClassVar[bool] = False

    def __init_subclass__(cls, name: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = name
        Model.registry[name] = cls
        make, signature = cls.__init__, inspect.signature(cls)

        @functools.wraps(make)
        def remember(self: Model, *args: Any, **kwargs: Any) -> None:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            make(self, *args, **kwargs)
            self.arguments = dict(given.arguments)

        cls.__init__ = remember

    def __init__(self) -> None:
        super().__init__()
        self.chosen: dict[str, Any] = {}

    def spec(self) -> dict[str, Any]:
        """Arguments that rebuild the module, as `json.dumps` takes them."""
        return self.arguments

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Model:
        """The inverse of :meth:`spec`, with weights that are about to be overwritten."""
        return cls(**spec)

    def parameter_groups(self) -> ParameterGroups:
        """Trainable parameters for two learning rates."""
        return ParameterGroups([], [parameter for parameter in self.parameters() if parameter.requires_grad])

    def constrain(self) -> None:
        """Is called after each step of the optimizer: what the weights must keep to, a greatest norm for instance."""

    def layers(self) -> list[nn.Module]:
        """Repeated layers, each a unit where a model is cut into shards."""
        return []

    def compile_body(self) -> None:
        """Compile what is worth it with torch.compile."""
        self.forward = torch.compile(self.forward)

    def facts(self) -> dict[str, Any]:
        """What results.json says of the model beside its size, as JSON values."""
        return self.chosen

    def count_parameters(self, *, trainable: bool = False) -> int:
        """Number of parameters of what predicts, or of those of them that are trained."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not name.startswith(self.unsaved) and (parameter.requires_grad or not trainable)
        )

    def save(self, folder: str | Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``, which is made if need be.

        ``weights``: whole tensors by the names of ``state_dict``, where the model itself holds shards of them.

        Files are written aside and renamed; the description holds the hash of the weights, so that a pair torn apart
        by an interruption is refused when it is loaded.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            key: value.detach().cpu().contiguous()
            for key, value in (self.state_dict() if weights is None else weights).items()
            if not key.startswith(self.unsaved)
        }
        with replacing(folder / WEIGHTS_FILE) as aside, writing(folder / WEIGHTS_FILE):
            save_file(tensors, aside, metadata={"format": "pt"})
            weights_sha256 = digest(aside)
        description = {
            "format": FORMAT,
            "weights_sha256": weights_sha256,
            "model": self.name,
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
            "spec": self.spec(),
        }
        write_json(folder / DESCRIPTION_FILE, description)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """Read a model written by :meth:`Model.save`, in eval mode; neither hub nor pretrained checkpoint is needed.

    Raises:
        UserError: if a file is missing or damaged, or the two do not belong together; the file and the key are named.
        MissingPackage: the network comes from a package that is not installed.
    """
    folder = Path(folder)
    description_file, weights_file = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
    for file in (description_file, weights_file):
        if not file.is_file():
            raise UserError(f"{file} is missing: {folder} is not the folder of a finished run")
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):  # methods import their models on first use only
        importlib.import_module(f"{__package__}.{module.name}")
    description = _read_description(description_file)
    if digest(weights_file) != description["weights_sha256"]:
        raise UserError(f"{weights_file} is damaged or does not belong to {description_file} (its hash differs)")
    try:
        tensors = load_file(weights_file)
    except SafetensorError as error:
        raise UserError(f"{weights_file} is not a readable safetensors file: {error}") from error
    try:
        # The random weights that are overwritten at once must not move the caller's random stream.
        with torch.random.fork_rng(devices=[]):
            model = Model.registry[description["model"]].from_spec(description["spec"])
    except MissingPackage:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{description_file} does not describe a model: {error}") from error
    model = model.to(_DTYPES[description["dtype"]])
    try:
        found = model.load_state_dict(tensors, strict=False)
        wrong = [*found.unexpected_keys, *(key for key in found.missing_keys if not key.startswith(model.unsaved))]
    except RuntimeError as error:  # names the tensors of another shape
        wrong = str(error).splitlines()[1:]
    if wrong:
        raise UserError(f"{weights_file} does not fit {description_file}: {', '.join(map(str.strip, wrong))}")
    return model.to(device).eval()


def _read_description(file: Path) -> dict[str, Any]:
    description = read_json(file)
    for key, valid in (
        ("format", [FORMAT]),
        ("weights_sha256", None),
        ("model", Model.registry),
        ("dtype", _DTYPES),
        ("spec", None),
    ):
        found = description.get(key)
        if found is None or (valid is not None and found not in list(valid)):
            expected = "a value" if valid is None else f"one of {', '.join(map(str, valid))}"
            raise UserError(f"{file}: {key}: expected {expected}, got {found!r}")
    return description
