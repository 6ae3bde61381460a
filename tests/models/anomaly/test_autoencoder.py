"""What autoencoders give of an image, against its plain definition."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from models.anomaly.autoencoder import BLACK, DIVERGENCE, ERRORS, ErrorScore, smoothed
from models.networks import build, logits, parameter_counts
from models.registry import AUTOENCODERS, MODELS, Head

SIZE = 64


def images(count=3, size=SIZE):
    """Grey noise with a black half: the background."""
    found = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))
    found = 0.1 + 0.9 * found  # no pixel of the breast is black
    found[..., size // 2 :] = 0
    return found


def similarity(one, two):
    """SSIM about each pixel in windows of 7 x 7, as Wang et al. 2004 write it (equation 13)."""
    mean = [uniform_filter(image, 7) for image in (one, two)]
    variance = [
        uniform_filter(image**2, 7) - m**2 for image, m in zip((one, two), mean, strict=False)
    ]
    both = uniform_filter(one * two, 7) - mean[0] * mean[1]
    light = (2 * mean[0] * mean[1] + 1e-4) / (mean[0] ** 2 + mean[1] ** 2 + 1e-4)
    return light * (2 * both + 9e-4) / (variance[0] + variance[1] + 9e-4)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build("cae_16", Head(error="mse")).eval()


@pytest.mark.parametrize("name", ["CAE", "VAE"])
def test_the_small_ones_have_about_110_000_parameters(name):
    row = MODELS[name]
    count, _ = parameter_counts(build(row.architecture, row.head))
    assert row.size == 128
    assert 100_000 < count < 120_000


@pytest.mark.parametrize("architecture", AUTOENCODERS)
@pytest.mark.parametrize("error", ERRORS)
def test_the_score_is_the_mean_error_inside_the_breast(architecture, error):
    torch.manual_seed(3)
    network = build(architecture, Head(error=error)).eval()
    batch = images()
    with torch.no_grad():
        restored = network.autoencoder.restore(batch)
        wanted = ERRORS[error](restored, batch)[..., : SIZE // 2].mean((1, 2, 3))
        torch.testing.assert_close(logits(network, batch, None), wanted)


def test_errors_are_those_of_their_names():
    one, two = images(), images().flip(2)
    squared, absolute = (one - two) ** 2, (one - two).abs()
    torch.testing.assert_close(ERRORS["mse"](one, two), squared)
    torch.testing.assert_close(ERRORS["l1"](one, two), absolute)
    inner = (slice(8, -8), slice(8, -8))  # beyond, edges are treated otherwise
    wanted = similarity(one[0, 0].double().numpy(), two[0, 0].double().numpy())
    found = 1 - 2 * ERRORS["ssim"](one, two)[0, 0].numpy()
    np.testing.assert_allclose(found[inner], wanted[inner], atol=1e-4)
    mixed = 0.84 * ERRORS["ssim"](one, two) + 0.16 * absolute
    torch.testing.assert_close(ERRORS["mix"](one, two), mixed)


def test_an_image_that_is_restored_has_no_error():
    for error in ERRORS.values():
        torch.testing.assert_close(error(images(), images()), torch.zeros(3, 1, SIZE, SIZE))


def test_the_background_counts_for_nothing(network):
    batch = images()
    with torch.no_grad():
        wider = torch.cat([batch, torch.zeros_like(batch)], dim=2)
        assert network.autoencoder.errors(wider)[:, SIZE:].abs().max() == 0
        black = torch.zeros(1, 1, SIZE, SIZE)
        assert logits(network, black, None).item() == 0  # and not NaN


def test_the_map_of_errors_is_a_mean_of_the_breast_about_each_pixel():
    inside = (images() > BLACK).float()
    flat = smoothed(0.3 * inside, inside)
    torch.testing.assert_close(flat, 0.3 * inside)  # up to the edge of the breast
    spot = torch.zeros_like(inside)
    spot[:, :, 20, 20] = 1
    found = smoothed(spot, inside)
    assert found[0, 0, 20, 20] == found.max() > 0
    assert found[0, 0, 40, 20] == 0


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(3)
    network = build("vae_16", Head(error="mse")).train()
    batch = images()
    mean, log_variance = network.autoencoder.moments(network.autoencoder.encoder(batch)).chunk(2, 1)
    ours = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    wanted = torch.distributions.kl_divergence(ours, standard).sum((1, 2, 3)) / SIZE**2
    torch.testing.assert_close(network.autoencoder(batch)[:, 1], wanted)


def test_codes_are_drawn_in_training_and_fixed_in_scoring():
    torch.manual_seed(3)
    network = build("vae_16", Head(error="mse"))
    batch = images()
    network.train()
    assert not torch.equal(network.autoencoder(batch)[:, 0], network.autoencoder(batch)[:, 0])
    network.eval()
    assert torch.equal(network.autoencoder(batch), network.autoencoder(batch))


def test_the_divergence_gets_its_weight_step_by_step():
    head, features = ErrorScore(), torch.tensor([[1.0, 10.0]])
    head.rises_over = 4
    found = [head.train()(features).item() for _ in range(6)]
    shares = [0.25, 0.5, 0.75, 1, 1, 1]
    assert found == pytest.approx([1 + 10 * DIVERGENCE * share for share in shares])
    assert head.eval()(features).item() == 1  # the error alone
    assert head.state_dict()["steps"] == 6  # which a checkpoint keeps
