"""Rows drawn while a network of your own trains: nothing is stored, every epoch sees new rows.

    python examples/while_training.py features.h5 model.safetensors

The model is one of `ldmlr diffuse`. The loader may have workers; rows stay the same.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import ldmlr


def main(store_path: str, model_path: str, epochs: int = 5, workers: int = 0) -> float:
    """Train two layers on real and drawn rows; return the accuracy on the test split, in per cent."""
    store = ldmlr.FeatureStore.open(store_path)
    data = ldmlr.torch.BalancedFeatures(store, model_path, seed=0)
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        data, batch_size=256, shuffle=True, num_workers=workers, generator=generator
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(store.dim, 128), nn.ReLU(), nn.Linear(128, store.num_classes))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)

    for epoch in range(epochs):
        data.set_epoch(epoch)  # other generated rows
        for features, labels in loader:
            loss = nn.functional.cross_entropy(network(features), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch}: loss of the last batch {loss.item():.3f}")

    with torch.no_grad():
        found = network(torch.tensor(store.test.features)).argmax(1).numpy()
    return 100 * float((found == store.test.labels).mean())


if __name__ == "__main__":
    print(f"{main(*sys.argv[1:3]):.2f} %")
