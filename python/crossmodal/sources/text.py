"""Labelled texts: the user's CSV and TSV files, and tokens of any texts."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crossmodal.data.readers.csv import read_cells
from crossmodal.errors import UserError
from crossmodal.sources.labelled import Labelled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OFTEN = 3  # where all other labels occur so often, one that occurs in the first line alone is the name of a column


@dataclass(frozen=True)
class LabelledTexts(Labelled):
    """Texts with labels; ``items`` are strings."""

    @property
    def sha256(self) -> str:
        """Hash of the texts, joined by a zero byte."""
        return hashlib.sha256("\0".join(self.items).encode()).hexdigest()


def read_labelled_text(path: Path) -> LabelledTexts:
    """Read a CSV (comma) or TSV (tab) file in UTF-8, one text and its label per row.

    A first row that contains both ``text`` and ``label`` (in any case) names the columns, and others are left out;
    otherwise there is no line of names, and there are two columns, text and label. Blank lines are skipped; all rows have
    the same number of columns. Classes are ordered by name.

    Raises:
        UserError: no such file; or names file and line of a row without text or label, with another number of columns, or
            malformed; or of columns that cannot be told apart: two of one name, more than two without names, or a first row
            that names them otherwise, it seems, because no other row has its label.
    """
    rows, wheres = read_cells(path, DELIMITERS[path.suffix.lower()])
    width, names = len(rows[0]), [cell.strip().lower() for cell in rows[0]]
    named = "text" in names and "label" in names
    if names.count("text") + names.count("label") > 2 or (not named and width != 2):
        raise UserError(
            f"{wheres[0]}: expected a text and a label, got {width} column(s); with other columns beside them, the first line "
            "has to name one of them text, and one label"
        )
    columns = (names.index("text"), names.index("label")) if named else (0, 1)
    texts: list[str] = []
    labels: list[str] = []
    for row, where in list(zip(rows, wheres, strict=True))[named:]:
        if len(row) != width:
            raise UserError(
                f"{where}: {len(row)} columns, but {width} in the first row (a cell with the delimiter in it must be in double "
                "quotes)"
            )
        text, label = (row[column].strip() for column in columns)
        if not text or not label:
            raise UserError(f"{where}: the {'label' if text else 'text'} is empty")
        texts.append(text)
        labels.append(label)
    if not texts:
        raise UserError(f"{path}: no texts")
    first, *others = labels
    if not named and first not in others and min(Counter(others).values(), default=0) >= OFTEN:
        raise UserError(
            f"{path}: the label {first!r} of the first line occurs nowhere else: if the line names the columns, call them "
            "text and label; if it is a sample, put a line `text` and `label` above it"
        )
    note = "columns named in the first line" if named else "no line of names: the columns are text and label"
    return LabelledTexts(tuple(texts), tuple(labels), tuple(sorted(set(labels))), str(path), note)


def tokenize(texts: LabelledTexts, tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> Tensor:
    """Token ids of the first ``num_tokens`` tokens of each text, without special tokens; int64 ``(n, num_tokens)``.

    A text with fewer tokens is repeated from its start until there are enough.

    Raises:
        UserError: a text has no token.
    """
    encoded = tokenizer(
        list(texts.items),
        add_special_tokens=False,
        truncation=True,
        max_length=num_tokens,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    rows = []
    for index, ids in enumerate(encoded):
        if not ids:
            raise UserError(f"{texts.origin}: text {index} has no token: {texts.items[index][:60]!r}")
        rows.append((ids * -(-num_tokens // len(ids)))[:num_tokens])
    return torch.tensor(rows, dtype=torch.int64)
