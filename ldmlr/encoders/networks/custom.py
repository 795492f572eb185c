"""Encoders from elsewhere: an import path, or a program written by `torch.export.save`."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmlr.errors import InputError, UsageError, nearest


def custom_network(path: str, shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Import ``package.module:factory``, call it and check that it encodes such images.

    The factory is called without arguments. The folder of the running command is searched as
    well as the installed packages. A trial run on blank images gives the number of feature
    dimensions, which is returned with the module.

    Raises
    ------
    UsageError
        The module or the factory is not there, or its result is no encoder.
    """
    module_name, _, factory_name = path.partition(":")
    factory = _import(path, module_name, factory_name)
    try:
        network = factory()
    except Exception as error:
        raise UsageError(f"--network: {path}() failed with {_short(error)}; correct the factory") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"--network: {path}() returned {type(network).__name__}; expected a torch.nn.Module")
    return network, check_encoder(network, shape, path)


def load_exported(path: Path, shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Return the module of an exported program (``.pt2``) and its feature dimensions.

    Raises
    ------
    InputError
        The file is damaged, or the program does not take batches of such images.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            network = program.module()
    except Exception as error:
        raise InputError(
            f"{path}: not a program written by torch.export.save ({_short(error)}); export it again"
        ) from error
    try:
        return network, check_encoder(network, shape, str(path))
    except UsageError as error:
        message = str(error).removeprefix("--network: ")
        raise InputError(f"{message} (export it with a dynamic batch dimension)") from error


def check_encoder(network: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """Run the network on blank images and return D; raise `UsageError` if it is no encoder."""
    height, width, channels = shape
    wanted = f"expected features [n, D] of images [n, {channels}, {height}, {width}]"
    training = network.training
    _set_training(network, False)
    dims = []
    for count in (2, 3):
        try:
            with torch.no_grad():
                features = network(torch.zeros(count, channels, height, width))
        except Exception as error:
            raise UsageError(f"--network: {name} failed with {_short(error)}; {wanted}") from error
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != count:
            found = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise UsageError(f"--network: {name} returned {found} for {count} images; {wanted}")
        dims.append(features.shape[1])
    _set_training(network, training)
    return int(dims[0])


def _set_training(network: nn.Module, training: bool) -> None:
    # The module of an exported program refuses train() and eval(): it is what it was exported as.
    with contextlib.suppress(RuntimeError, NotImplementedError):
        network.train(training)


def _import(path: str, module_name: str, factory_name: str) -> Callable[[], Any]:
    if not module_name or not factory_name:
        raise UsageError(f"--network: {path!r} is no import path; write package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"--network: cannot import {module_name!r} ({error}); check the path") from error
    except Exception as error:
        raise UsageError(f"--network: importing {module_name!r} failed with {_short(error)}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        names = [name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_"]
        raise UsageError(
            f"--network: {module_name} has no callable {factory_name!r}; {nearest(factory_name, names)}"
        )
    found: Callable[[], Any] = factory
    return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
