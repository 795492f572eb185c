"""Fixtures that every test file may use."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Set before torch is loaded: threads that spin while they wait make a busy machine many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from support import emulator as emulation

from ldmlr import progress

# Examples are chosen by a fixed seed, so that a failure on one machine is a failure on all.
settings.register_profile(
    "ldmlr", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ldmlr")


@dataclasses.dataclass
class Outcome:
    """What a command did: exit status, standard output and standard error."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``ldmlr ARGS`` in this process, through the same entry point as the installed command."""
    from ldmlr_cli.main import main

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        progress.silence(False)
        out, err = capsys.readouterr()
        status = ended.value.code
        return Outcome(status if isinstance(status, int) else 0, out, err)

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the CIFAR-LT stores, or skip the test where it is absent."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("LDMLR_TEST_DATA", root.parent / "shared" / "data"))
    if not (folder / "cifar10-lt-if100-features.h5").is_file():
        pytest.skip("the CIFAR-LT stores are absent; set LDMLR_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> emulation.Emulator:
    """Compile the CUDA kernels for emulated threads, or skip the test where there is no compiler."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    path = tmp_path_factory.mktemp("emulated") / "emulated.so"
    subprocess.run([compiler, *emulation.FLAGS, str(emulation.SOURCE), "-o", str(path)], check=True)
    return emulation.Emulator(path)


ColourImages = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def colour_images() -> ColourImages:
    """Make images ``[n, size, size, 3]`` whose class is a bright channel, and their labels."""

    def make(counts: tuple[int, ...], seed: int = 0, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(len(counts)), counts)
        images = np.random.default_rng(seed).integers(0, 90, (len(labels), size, size, 3), np.uint8)
        images[np.arange(len(labels)), :, :, labels] += 130
        return images, labels

    return make


@pytest.fixture
def image_file(tmp_path: Path, colour_images: ColourImages) -> Path:
    """Write a long-tailed image set (40, 16 and 6 images) with a balanced test split."""
    path = tmp_path / "colours.h5"
    with h5py.File(path, "w") as file:
        for split, counts, seed in (("train", (40, 16, 6), 0), ("test", (10, 10, 10), 1)):
            file[f"{split}/images"], file[f"{split}/labels"] = colour_images(counts, seed)
        file["class_names"] = ["red", "green", "blue"]
    return path


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Start Ray on two CPUs of this machine; without it, skip."""
    ray = pytest.importorskip("ray")
    # On a busy machine workers that are nice never come up, and are given up after a minute.
    settings = {"USAGE_STATS_ENABLED": 0, "worker_niceness": 0, "worker_register_timeout_seconds": 600}
    os.environ.update({f"RAY_{name}": str(value) for name, value in settings.items()})
    # Another folder's ldmlr may be installed: the workers take this one.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for attempt in range(3):
        try:
            ray.init(
                num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths}
            )
            break
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == 2:
                raise
            ray.shutdown()  # a busy machine
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run of the built-in set, two seeds; only to be read."""
    from ldmlr_cli.main import main

    folder = tmp_path_factory.mktemp("report") / "digits"
    quick = (
        "--set", "baseline.epochs=2", "--set", "diffuse.iterations=60", "--set", "diffuse.hidden=16",
        "--set", "finetune.epochs=2", "--threads", "1",
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits-lt", "--seeds", "2", "--out", str(folder), *quick])
    assert not ended.value.code
    return folder


@pytest.fixture
def one_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw each picture of a page once instead of for every width and theme, where pictures are no matter."""
    from ldmlr.report import page

    monkeypatch.setattr(page, "DRAWINGS", page.DRAWINGS[-1:])


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return the URL of a bucket on a local S3 server."""
    pytest.importorskip("s3fs", reason="needs pip install 'ldmlr[remote]'")
    server = pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors")
    with pytest.MonkeyPatch.context() as patch:
        here = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        here.start()
        host, port = here.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        import fsspec

        # The server's objects are those of this process, whatever its port.
        bucket = f"bucket-{port}"
        fsspec.filesystem("s3").mkdir(bucket)
        yield f"s3://{bucket}"
        fsspec.filesystem("s3").clear_instance_cache()
        here.stop()
