"""Reading files of ``torch.save`` without executing code, and checking state dicts against a network."""

import argparse
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdnla.errors import UserError

_LISTED = 4  # names listed in an error before "and N more"
_NAME = 80  # longest name in an error, in characters
SOURCE = 200
"""Longest description of the source of weights, in characters."""


def load_pickle(path: Path) -> Mapping[str, Any]:
    """Read a ``torch.save`` file without executing code: tensors, plain containers and ``Namespace`` only.

    Raises:
        UserError: the file is truncated, was not written by ``torch.save``, or holds other objects.
    """
    try:
        # Opened here, because torch chooses the format by the file's suffix.
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
            if zipfile.is_zipfile(file) and any(part.compress_type for part in zipfile.ZipFile(file).infolist()):
                # torch.save does not compress, and a small file must not expand to a huge one.
                raise UserError(f"{path}: is a compressed archive, which torch.save does not write; copy it again")
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{path}: holds objects other than tensors, which could run code; nothing was loaded."
                " Pass a checkpoint that holds only tensors"
            ) from error
        raise UserError(f"{path}: is truncated or not a weights file; copy it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights; pass a weights file")
    return content


def tensors_of(content: object, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict read from a file after checking it: names, and dense tensors on the CPU.

    Raises:
        UserError: it holds other objects.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds {type(content).__name__} where weights are expected; copy it again")
    state = {}
    for name, tensor in content.items():
        dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not isinstance(name, str) or not dense or tensor.is_quantized or tensor.is_complex():
            raise UserError(f"{path}: holds {type(tensor).__name__} where weights are expected; copy it again")
        state[name] = tensor
    return state


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor of a state dict."""
    return {name: tensor.shape for name, tensor in state.items()}


def memory_of(state: Mapping[str, Tensor]) -> int:
    """Return the memory of a state dict in bytes; views that repeat or share numbers count once."""
    storages = [tensor.untyped_storage() for tensor in state.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise :class:`UserError` listing a few names of ``state`` that are missing, unexpected or misshapen."""
    problems = []
    for label, names in (
        ("missing", sorted(expected.keys() - state.keys())),
        ("unexpected", [printable(name) for name in sorted(state.keys() - expected.keys())]),
        (
            "misshapen",
            [
                f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in sorted(state.keys() & expected.keys())
                if state[name].shape != expected[name].shape
            ],
        ),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            problems.append(f"{len(names)} {label} ({', '.join(names[:_LISTED])}{more})")
    if problems:
        raise UserError(f"{path}: its tensors do not fit the network: {'; '.join(problems)}; pass other weights")


def printable(text: str, longest: int = _NAME) -> str:
    """Return text from a file in a form that fits into a sentence: printable, on one line and short."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
