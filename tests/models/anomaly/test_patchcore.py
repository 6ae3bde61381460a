"""PatchCore's parts, against their plain definitions."""

import torch
from scipy.spatial.distance import cdist
from torch.nn import functional

from models.anomaly.patchcore import AT_ONCE, coreset, nearest
from models.networks import build, logits
from models.registry import MODELS, Head


def points(count, channels=8, seed=1):
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_that_to_the_nearest_patch(monkeypatch):
    patches, bank = points(50), points(20, seed=2)
    wanted = torch.from_numpy(cdist(patches, bank).min(axis=1)).float()
    torch.testing.assert_close(nearest(patches, bank), wanted)
    assert AT_ONCE > 50 * 20
    monkeypatch.setattr("models.anomaly.patchcore.AT_ONCE", 60)  # three patches at a time
    torch.testing.assert_close(nearest(patches, bank), wanted)


def test_the_coreset_covers_better_than_chance():
    generator = torch.Generator().manual_seed(4)
    clusters = 10 * points(30).repeat_interleave(40, 0)
    patches = clusters + 0.1 * points(1200, seed=3)
    chosen = coreset(patches, 30, generator)
    assert len(set(chosen.tolist())) == 30
    assert nearest(patches, patches[chosen]).max() < 3  # one in each cluster
    drawn = torch.randperm(1200, generator=generator)[:30]
    assert nearest(patches, patches[drawn]).max() > 10


def test_the_same_seed_chooses_the_same_and_few_patches_are_all_kept():
    patches = points(200)
    first, again = (coreset(patches, 20, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, again)
    few = coreset(points(3), 7, torch.Generator().manual_seed(9))
    assert few.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_score_is_of_the_farthest_patch_of_two_stages():
    torch.manual_seed(3)
    row = MODELS["PatchCore"]
    network = build(row.architecture, row.head).eval()
    plain = build(row.architecture, Head()).eval()
    state = network.state_dict()
    plain.load_state_dict(plain.state_dict() | {n: v for n, v in state.items() if n != "head.bank"})
    network.head.bank.normal_(generator=torch.Generator().manual_seed(5))
    batch = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        maps = batch
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2"):
            maps = getattr(plain, name)(maps)
        pooled = [functional.avg_pool2d(one, 3, 1, 1) for one in (maps, plain.layer3(maps))]
        pooled[1] = functional.interpolate(pooled[1], size=maps.shape[-2:], mode="bilinear")
        patches = torch.cat(pooled, 1).flatten(2).transpose(1, 2)  # (B, 64, C)
        wanted = [torch.cdist(one, network.head.bank).amin(1).max().item() for one in patches]
        found = logits(network, batch, None)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
