"""Would int8 products be accurate enough? Simulated: the sampler with rounded weights and activations.

    python benchmarks/lab/int8_accuracy.py cifar10-lt-if100-features.h5 --seeds 3

Weights: int8 per output, symmetric. Activations: int8 with one fixed scale per layer, from the largest
absolute value of a calibration draw (a scale per batch would make a row depend on its neighbours).
``all`` rounds every product, ``hidden`` leaves those that read x in float32. Rounded values are exact
in float32, and so are their sums, so this is what `vpdpbusd` would return.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import silu

from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import labels_of, plan
from ldmlr.groups import parse_groups
from ldmlr.heads.evaluation import measure, tuned_variants
from ldmlr.heads.finetune import finetune
from ldmlr.sampler import reference
from ldmlr.sampler.noise import standard_normal
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.store import FeatureStore


class Int8Sampler:
    """The additive sampler whose products round their operands."""

    def __init__(self, spec: SamplerSpec, products: str) -> None:
        self.spec, self.products = spec, products
        tables = spec.tables
        self.w = {name: torch.from_numpy(getattr(tables, name)) for name in tables.__dataclass_fields__}
        self.largest: dict[str, float] = {}
        self.calibrating = products != "none"
        if self.calibrating:
            self(np.arange(2000) % spec.num_classes, 10**9)
            self.calibrating = False

    def product(self, name: str, a: Tensor, weight: Tensor) -> Tensor:
        """Return a W^T with both rounded to int8, or exactly while calibrating."""
        if self.calibrating:
            self.largest[name] = max(self.largest.get(name, 0.0), float(a.abs().max()))
        if self.calibrating or self.products == "none" or (self.products == "hidden" and name == "x"):
            return a @ weight.T
        step = self.largest[name] / 127
        rows = weight.abs().amax(1) / 127
        return ((a / step).round().clamp(-127, 127) @ (weight / rows[:, None]).round().T) * step * rows

    def network(self, x: Tensor, step: int, labels: Tensor) -> Tensor:
        """Return silu(h) of the last layer."""
        w = self.w
        h = self.product("x", x, w["w_in"]) + w["b_in"]
        for layer in range(len(w["w1"])):
            if layer == 0:
                u = self.product("x", x, w["w1"][0] @ w["w_in"]) + w["w1"][0] @ w["b_in"]
            else:
                u = self.product(f"h{layer}", h, w["w1"][layer])
            u = silu(u + w["bias_step"][step, layer] + w["bias_class"][labels, layer])
            h = h + self.product(f"u{layer}", u, w["w2"][layer]) + w["b2"][layer]
        return silu(h)

    @torch.inference_mode()
    def __call__(self, classes: npt.NDArray[np.int64], first_row: int = 0) -> npt.NDArray[np.float32]:
        """Draw one row per label."""
        spec, w = self.spec, self.w
        labels = torch.from_numpy(classes)
        null = torch.full_like(labels, spec.num_classes)

        def noise(stream: int, step: int) -> Tensor:
            rows = standard_normal(spec.seed, first_row, len(classes), spec.dim, stream, step)
            return torch.from_numpy(rows)

        def guided(x: Tensor, step: int) -> Tensor:
            without = self.network(x, step, null)
            mixed = without + spec.guidance * (self.network(x, step, labels) - without)
            return self.product("a", mixed, w["w_out"]) + w["b_out"]

        x = solve(spec.rows, noise(0, 0), guided, lambda step: noise(1, step))
        mean, scale = torch.from_numpy(spec.mean), torch.from_numpy(spec.scale)
        rows = (mean[labels] + spec.k * (x.double() @ scale.T)).clamp_min(spec.floor)
        return rows.float().numpy()


def main() -> None:
    """Print deviations and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for path in options.stores:
        with FeatureStore.open(path) as store:
            for seed in range(options.seeds):
                model = LatentDiffusion(seed=seed).fit_store(store)
                counts = plan(model.counts)
                labels = labels_of(counts, 0, int(counts.sum()))
                spec = model.spec(seed=seed)
                exact = reference.sample(spec, labels[::20], precision=torch.float64).numpy()
                for products in ("none", "hidden", "all"):
                    sampler = Int8Sampler(spec, products)
                    difference = (sampler(labels[::20]) - exact) / exact.std()
                    tuned = finetune(store, (sampler(labels), labels), seed=seed)
                    measured = measure(
                        tuned_variants(tuned), store.split("test"), tuned.counts, parse_groups("100,20")
                    )
                    figures = ", ".join(f"{entry.figures['all']:.2f}" for entry in measured)
                    largest, rms = np.abs(difference).max(), np.sqrt(np.mean(difference**2))
                    print(f"{path.name} seed {seed} {products:<7} max {largest:.1e} rms {rms:.1e}  {figures}")


if __name__ == "__main__":
    main()
