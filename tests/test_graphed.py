"""`ldmlr.encoders.graphed` and `batches` on a GPU: gradients by graphs, and many batches augmented at
once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ldmlr.data.images import ArraySplit
from ldmlr.encoders import graphed
from ldmlr.encoders.augment.augmentation import Augmentation
from ldmlr.encoders.batches import Batches
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.pixels import Pixels, even_batches
from ldmlr.encoders.trainer import Trainer

Mixed = tuple[torch.Tensor, torch.Tensor]


class Repeated:
    """A graph for a processor: does the work again, from and to the same places."""

    made = 0

    def __init__(self, work, mixed: Sequence[Mixed], share: float, parameters) -> None:
        type(self).made += 1
        self.work, self.share = work, share
        self.inputs = [(images.clone(), targets.clone()) for images, targets in mixed]

    def __call__(self, mixed: Sequence[Mixed]) -> graphed.Outcome:
        for kept, given in zip(self.inputs, mixed, strict=True):
            for to, tensor in zip(kept, given, strict=True):
                to.copy_(tensor)
        return self.work(self.inputs, self.share)


def split(count: int = 90) -> ArraySplit:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 16, 16, 3), np.uint8)
    return ArraySplit(images, np.arange(count) % 3, 3)


CONFIG = BaselineConfig(
    network="small", epochs=5, batch_size=16, warmup_epochs=1, precision="float32", first_size=0.5, mixup=0.0
)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    trainer.run(lambda: None)
    return [value.cpu() for value in trainer.model.state_dict().values()]


@pytest.mark.parametrize("changes", [{}, {"loss": "weighted", "cumulative": True}])
def test_a_graph_for_each_shape_and_the_same_weights(monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    config = CONFIG.replace(**changes)
    expected = weights(Trainer(config, split(), 0, torch.device("cpu")))
    Repeated.made = 0
    monkeypatch.setattr(graphed, "Replay", Repeated)
    monkeypatch.setattr(graphed.Graphed, "_beside", lambda self, *given: self.work(*given))
    trainer = Trainer(config, split(), 0, torch.device("cpu"))
    by_graph = graphed.Graphed(trainer._gradients, list(trainer.model.parameters()))
    trainer.gradients = by_graph
    for found, wanted in zip(weights(trainer), expected, strict=True):
        assert torch.equal(found, wanted)
    # 90 images are six batches of 15: three steps of each size without a graph, then one graph for it; those
    # of the sizes before are dropped.
    assert Repeated.made == len({key[0] for key in by_graph.seen}) == 3
    assert [key[0] for key in by_graph.graphs] == [1.0]
    assert all(count == graphed.WARM_UP + 1 for count in by_graph.seen.values())


@pytest.mark.cuda
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": 1.0, "cutmix": 1.0, "consistency": 1.0},
        {"loss": "weighted", "cumulative": True},
        {"contrast": 1.0},
        {"contrast": 1.0, "contrast_loss": "balanced", "loss": "balanced-softmax"},
        {"contrast": 1.0, "contrast_loss": "binary", "loss": "binary", "uniformity": 1.0},
    ],
)
def test_on_a_device_gradients_are_those_without_a_graph(changes: dict) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    device = torch.device("cuda", torch.cuda.current_device())
    trainer = Trainer(CONFIG.replace(network="resnet32", **changes), split(), 0, device)
    by_graph = trainer.gradients
    assert isinstance(by_graph, graphed.Graphed)
    trainer.model.train()
    views = 2 if trainer.config.two_views else 1
    plan = [np.arange(30), np.arange(30, 60)]
    batches = list(trainer.batches.draw(plan, views, torch.Generator().manual_seed(1)))
    batches = [[(images, targets) for images in drawn] for drawn, targets in batches]

    def flat() -> torch.Tensor:
        found = [p.grad for p in trainer.model.parameters()]
        return torch.cat([gradient.flatten() for gradient in found if gradient is not None])

    wanted = []
    for mixed in batches:
        loss, _ = trainer._gradients(mixed, 1.0)
        wanted.append((float(loss), flat().clone()))
    # No step is taken, so the weights stay, and other batches have other gradients.
    assert (wanted[0][1] - wanted[1][1]).norm() > 0.3 * wanted[0][1].norm()
    for _ in range(graphed.WARM_UP + 1):
        by_graph(batches[0], 1.0)
    assert len(by_graph.graphs) == 1
    for mixed, (loss, gradient) in zip(batches, wanted, strict=True):
        found, _ = by_graph(mixed, 1.0)
        assert float(found) == pytest.approx(loss, rel=1e-2)
        assert (flat() - gradient).norm() < 0.05 * gradient.norm()


def test_many_batches_augmented_at_once_keep_their_images() -> None:
    images = split()
    config = CONFIG.replace(augment="none")
    augment = Augmentation(config, [0.0] * 3, [1.0] * 3)
    plan = even_batches(np.random.default_rng(1).permutation(90), 16)
    for at_once in (0, 16 * 16 * 16 * 3 * 4 * 4, 1 << 30):
        batches = Batches(Pixels(images), images.labels, 3, augment, torch.device("cpu"), at_once)
        drawn = list(batches.draw(plan, 2, torch.Generator()))
        assert [len(targets) for _, targets in drawn] == [len(rows) for rows in plan]
        for rows, (views, targets) in zip(plan, drawn, strict=True):
            wanted = torch.from_numpy(images.load(rows)).permute(0, 3, 1, 2).float()
            assert all(torch.equal(view, wanted) for view in views)
            assert np.array_equal(targets.argmax(1).numpy(), images.labels[rows])
