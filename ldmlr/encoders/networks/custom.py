"""Encoders from elsewhere: an import path, or a program written by `torch.export.save`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ldmlr.encoders.networks.program import check_program
from ldmlr.errors import InputError, UsageError, counted, nearest, opt

# Features of an image in two batches differ by so much of the largest one at most: 8-bit arithmetic with one
# scale per batch comes to half of it, batch normalisation in training mode to ten times as much.
BATCH_TOLERANCE = 0.05


def custom_network(
    path: str, shape: tuple[int, int, int], option: str = opt("network")
) -> tuple[nn.Module, int]:
    """Import ``package.module:factory``, call it and check that it encodes such images.

    The factory is called without arguments. The folder of the running command is searched as
    well as the installed packages; ``FILE.py:factory`` names a file. A trial run on
    random images gives the number of feature dimensions, which is returned with the module.

    Parameters
    ----------
    path
        The import path.
    shape
        Height, width and channels of the images.
    option
        What the path was given as, for messages.

    Raises
    ------
    UsageError
        The module or the factory is not there, or its result is no encoder.
    """
    network = call_factory(path, option)
    return network, check_encoder(network, shape, f"{option}: {path}")


def call_factory(path: str, option: str = opt("network")) -> nn.Module:
    """Return what ``package.module:factory`` returns, before it is known which images it is for.

    Raises
    ------
    UsageError
        The module or the factory is not there, or its result is no module.
    """
    module_name, _, factory_name = path.partition(":")
    factory = _import(option, path, module_name, factory_name)
    try:
        network = factory()
    except Exception as error:
        raise UsageError(f"{option}: {path}() failed with {_short(error)}; correct the factory") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{option}: {path}() returned {type(network).__name__}; expected a torch.nn.Module")
    return network


def load_exported(path: Path, shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Return the module of an exported program (``.pt2``) and its feature dimensions.

    Raises
    ------
    InputError
        The file is damaged, or the program does not encode batches of such images one by one.
    """
    check_program(path)
    try:
        with warnings.catch_warnings(), _plain_pickles():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            # The guards of a program are texts that would be run as Python.
            unguarded = "check_guards" in inspect.signature(program.module).parameters
            network = program.module(check_guards=False) if unguarded else program.module()
    except Exception as error:
        raise InputError(
            f"{path}: not a program written by torch.export.save ({_short(error)}); export it again"
        ) from error
    return network, check_encoder(network, shape, str(path), exported=True)


@contextlib.contextmanager
def _plain_pickles() -> Iterator[None]:
    """Let torch read tensors and plain data alone: where they do not suffice, its loader takes any pickle."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check_encoder(
    network: nn.Module, shape: tuple[int, int, int], where: str, *, exported: bool = False
) -> int:
    """Run the network on random images and return D, or raise an error if it is no encoder.

    Parameters
    ----------
    network
        The module, run in evaluation mode where it has one.
    shape
        Height, width and channels of the images.
    where
        What it is called in messages.
    exported
        Whether it is the module of an exported program, which has to be exported again to change.

    Raises
    ------
    UsageError, InputError
        It does not return real features ``[n, D]``, or those of an image change with the other images of
        the batch. The second kind is that of exported programs.
    """
    height, width, channels = shape
    wanted = f"expected features [n, D] of images [n, {channels}, {height}, {width}]"
    failure = InputError if exported else UsageError
    if exported:
        wanted += " (export it with a dynamic batch dimension)"
    images = _trial_images(shape)
    training = network.training
    set_training(network, False)
    found: list[torch.Tensor] = []
    for count in (2, 3):
        try:
            with torch.no_grad():
                features = network(images[:count])
        except Exception as error:
            raise failure(f"{where} failed with {_short(error)}; {wanted}") from error
        fits = isinstance(features, torch.Tensor) and features.ndim == 2 and len(features) == count
        if not fits or not features.shape[1]:
            kind = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise failure(f"{where} returned {kind} for {counted(count, 'image')}; {wanted}")
        if features.is_complex():
            kind = str(features.dtype).removeprefix("torch.")
            raise failure(f"{where} returned {kind} features; return real numbers, such as their .abs()")
        found.append(features.float())
    set_training(network, training)
    if found[0].shape[1] != found[1].shape[1]:
        dims = f"{counted(found[0].shape[1], 'dimension')} for 2 images and {found[1].shape[1]} for 3"
        raise failure(f"{where} returned features of {dims}; {wanted}")
    # Not finite where features are not: the encoding tells of which row.
    difference = float((found[1][:2] - found[0]).abs().amax() / found[1].abs().amax())
    if math.isfinite(difference) and difference > BATCH_TOLERANCE:
        remedy = "export it after .eval()" if exported else "let them depend on the image alone"
        raise failure(
            f"{where} returned other features for the same images in another batch, as batch normalisation "
            f"and dropout do in training mode; {remedy}"
        )
    return int(found[0].shape[1])


def _trial_images(shape: tuple[int, int, int]) -> torch.Tensor:
    """Return three images ``[3, C, H, W]`` of clearly different brightness and contrast, always the same."""
    height, width, channels = shape
    # Of a generator of their own: the caller's random numbers stay as they are.
    noise = torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    contrast, brightness = torch.tensor([[1.0, 0.5, 1.5], [-1.0, 0.0, 1.0]]).view(2, 3, 1, 1, 1)
    images: torch.Tensor = noise * contrast + brightness
    return images


def set_training(network: nn.Module, training: bool) -> None:
    """Put a network into training or evaluation mode, where it has them.

    The module of an exported program refuses both: it is what it was exported as.
    """
    with contextlib.suppress(RuntimeError, NotImplementedError):
        network.train(training)


def _import(option: str, path: str, module_name: str, factory_name: str) -> Callable[[], Any]:
    if not module_name or not factory_name:
        raise UsageError(f"{option}: {path!r} is no import path; write package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if module_name.endswith(".py"):
            module = _module_of(Path(module_name))
        else:
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"{option}: cannot import {module_name!r} ({error}); check the path") from error
    except Exception as error:
        raise UsageError(f"{option}: importing {module_name!r} failed with {_short(error)}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        names = [name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_"]
        raise UsageError(
            f"{option}: {module_name} has no callable {factory_name!r}; {nearest(factory_name, names)}"
        )
    found: Callable[[], Any] = factory
    return found


def _module_of(file: Path) -> ModuleType:
    """Import a file of Python code; what lies beside it can be imported from there."""
    if not file.is_file():
        raise ImportError(f"no file {file}")
    name = file.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(file.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if known is not None or spec is None or spec.loader is None:
        raise ImportError(f"{name} is the name of another module: rename the file")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
