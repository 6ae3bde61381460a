"""Autoencoders: what they cannot restore of an image is what they have not seen in normal ones.

A convolutional one (CAE) as in Masci et al. 2011 (ICANN, p. 52) and a variational one (VAE: Kingma
& Welling 2014, arXiv:1312.6114), both with residual blocks (He et al. 2016, CVPR, p. 770).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

HALVINGS = 4  # of the image's side, down to the codes
HALVED = 2**HALVINGS  # that a side has to be a multiple of
SLOPE = 0.1  # of leaky rectified units, below 0
BLACK = 0.5 / 255  # grey value up to which a pixel is background: preprocessing paints it black
WINDOW = 7  # side in pixels of the window that SSIM compares
SSIM_CONSTANTS = 0.01**2, 0.03**2  # for grey values in [0, 1] (Wang et al. 2004, section III)
MIX = 0.84  # of SSIM beside L1 (Zhao et al. 2017, IEEE TCI 3:47, section III)
LEAST_LOG, MOST_LOG = -12.0, 8.0  # of a variance: beyond, its exponential is 0 or overflows
SMOOTHED = 1 / 14  # of the image's side: fields whose mean error the map of errors shows
# Of the divergence for each pixel beside the squared error, in the loss of the VAE and in its ELBO:
# 2 sigma^2 for grey values that scatter by sigma = 0.05 about what is restored.
DIVERGENCE = 2 * 0.05**2


class Autoencoder(nn.Module):
    """Restores images through a narrow code, and says how badly.

    What it gives of each image is one vector: the error, the divergence, the mean code.
    """

    def __init__(self, width: int, variational: bool, error: str) -> None:
        """Build it with random weights.

        Args:
            width: Channels of the first layer; codes of the CAE have twice as many, of the VAE as
                many.
            variational: Whether codes are drawn from a normal distribution each (VAE).
            error: A key of `ERRORS`: what is small where an image is restored well.
        """
        super().__init__()
        self._error = ERRORS[error]
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            *(
                _Block(width if number == 1 else 2 * width, 2 * width, stride=2)
                for number in range(1, HALVINGS)
            ),
        )
        self.moments = nn.Conv2d(2 * width, 2 * width, 1) if variational else None
        codes = width if variational else 2 * width
        widths = [codes, *[2 * width] * (HALVINGS - 1), width]
        blocks: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            blocks += [nn.Upsample(scale_factor=2), _Block(inputs, outputs)]
        self.decoder = nn.Sequential(*blocks, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2 + C) float32: error, divergence for each pixel, and mean code of images.

        Args:
            images: (B, 1, S, S) float32 in [0, 1], S a multiple of 16.
        """
        mean, divergence, restored = self._pass(images)
        inside = (images > BLACK).float()
        errors = self._error(restored.float(), images) * inside  # (B, 1, S, S)
        error = errors.sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1)
        parts = [error[:, None], divergence[:, None], mean.float().mean((2, 3))]
        return torch.cat(parts, dim=1)

    def restore(self, images: Tensor) -> Tensor:
        """Return (B, 1, S, S) float32: images as they come out."""
        return self._pass(images)[2].float()

    def errors(self, images: Tensor) -> Tensor:
        """Return (B, S, S) float32: the error about each pixel, 0 outside the breast."""
        inside = (images > BLACK).float()
        errors = self._error(self.restore(images), images) * inside
        return smoothed(errors, inside)[:, 0]

    def _pass(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean codes (B, C, h, w), divergences (B,) and restored images (B, 1, S, S)."""
        codes = self.encoder(images)
        if self.moments is None:
            # Of a shape and not of a length, which an exported graph would keep.
            none = torch.zeros(images.shape[:1], device=images.device)
            return codes, none, self.decoder(codes)
        mean, log_variance = self.moments(codes).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(LEAST_LOG, MOST_LOG)
        drawn = mean
        if self.training:
            drawn = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        # From the standard normal distribution, in nats (Kingma & Welling 2014, appendix B).
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        divergence = each.sum((1, 2, 3)) / images[0].numel()
        return mean, divergence, self.decoder(drawn)


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.leaky_relu(self.way(maps) + self.shortcut(maps), SLOPE)


class ErrorScore(nn.Module):
    """The head of an autoencoder: its score is the error; its loss has the divergence beside it.

    The divergence gets its weight step by step, or the codes would collapse to the standard normal
    distribution before they carry anything (Bowman et al. 2016, arXiv:1511.06349, section 3.1).
    """

    steps: Tensor

    def __init__(self) -> None:
        """Start at the first step."""
        super().__init__()
        self.rises_over = 1  # steps in which the weight of the divergence rises
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, 1): in eval mode the error, in train mode the loss.

        Args:
            features: (B, 2 + C) of `Autoencoder`.
        """
        error = features[:, :1]
        if not self.training:
            return error
        self.steps += 1
        weight = DIVERGENCE * (self.steps / self.rises_over).clamp_max(1)
        return error + weight * features[:, 1:2]


def smoothed(errors: Tensor, inside: Tensor) -> Tensor:
    """Return the mean error inside the breast of the field about each pixel; 0 outside the breast.

    Args:
        errors: (B, 1, S, S), 0 outside the breast.
        inside: (B, 1, S, S), 1 inside the breast and else 0.
    """
    side = 2 * round(SMOOTHED * errors.shape[-1] / 2) + 1
    sums, counts = (functional.avg_pool2d(one, side, 1, side // 2) for one in (errors, inside))
    return inside * sums / counts.clamp_min(1 / side**2)


def _squared(restored: Tensor, images: Tensor) -> Tensor:
    return (restored - images).square()


def _absolute(restored: Tensor, images: Tensor) -> Tensor:
    return (restored - images).abs()


def _dissimilarity(restored: Tensor, images: Tensor) -> Tensor:
    """Return (1 - SSIM) / 2 about each pixel, in [0, 1] (Wang et al. 2004, IEEE TIP 13:600)."""

    def mean(maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    one, two = mean(restored), mean(images)
    scatter_one = (mean(restored.square()) - one.square()).clamp_min(0)
    scatter_two = (mean(images.square()) - two.square()).clamp_min(0)
    both = mean(restored * images) - one * two
    first, second = SSIM_CONSTANTS
    above = (2 * one * two + first) * (2 * both + second)
    below = (one.square() + two.square() + first) * (scatter_one + scatter_two + second)
    return (1 - above / below) / 2


def _mixed(restored: Tensor, images: Tensor) -> Tensor:
    return MIX * _dissimilarity(restored, images) + (1 - MIX) * _absolute(restored, images)


# (B, 1, S, S) restored and original grey values in [0, 1] -> (B, 1, S, S) errors, at least 0.
ERRORS = {"mse": _squared, "l1": _absolute, "ssim": _dissimilarity, "mix": _mixed}
