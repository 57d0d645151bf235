"""Losses of DPTN step generation: step prediction, the face term, and a term for hue."""

import torch
import torch.nn.functional as F

from models.losses.perceptual import CONTENT_LAYERS, VGG19Features, content_loss
from util.run.device import in_full_precision
from util.tensors import constant, standardise

MIN_FACE = 32  # pixels; profiles and back views get a box of this size
FACE_PER_EYES = 2.5  # side of the box in eye distances


def step_loss(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the step head (N, J) against true steps (N,), counted from 0.

    Auxiliary-classifier GAN (Odena et al., ICML 2017): D is trained on real and generated images
    with their true step, G is rewarded when its image is recognised as its own step.
    """
    return F.nll_loss(log_probabilities, labels)


def chroma_loss(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean |difference| of R - G and B - G of images (B, 3, H, W); shades of grey differ by 0.

    Not published. L1 on RGB alone has a plateau where everything is brown: a grey of the right
    brightness is most of it.
    """
    red, green, blue = (fake - real).unbind(1)
    return ((red - green).abs() + (blue - green).abs()).mean() / 2


def face_boxes(
    eyes: torch.Tensor,  # (B, 2, 2): right and left eye, (y, x) pixels
    image_size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (B, 2) as (y, x) and half sides (B,), in pixels, of square boxes around the faces.

    Centre: midpoint of the eyes. Side: 2.5 eye distances (left x - right x), at least 32 pixels, at
    most the image; the centre is moved so that centre +- half stays inside.
    """
    height, width = image_size
    right, left = eyes.double().unbind(1)
    distance = left[:, 1] - right[:, 1]  # <= 0 in profiles and back views
    side = (FACE_PER_EYES * distance).trunc().clamp(min=MIN_FACE).clamp(max=min(height, width))
    half = (side / 2).floor()
    centre = ((right + left) / 2).floor()
    limit = constant((height, width), half.dtype, half.device) - half[:, None]
    return torch.minimum(torch.maximum(centre, half[:, None]), limit), half


def _sampling(start: torch.Tensor, side: torch.Tensor, length: int, size: int) -> torch.Tensor:
    """Bilinear weights (B, size, length) that resample [start, start + side), corners aligned."""
    fraction = torch.linspace(0, 1, size, dtype=torch.float64, device=start.device)
    position = start[:, None] + fraction * (side[:, None] - 1)  # (B, size)
    pixel = torch.arange(length, dtype=torch.float64, device=start.device)
    return (1 - (position[..., None] - pixel).abs()).clamp(min=0)


@in_full_precision
def crop_faces(
    images: torch.Tensor,  # (B, 3, H, W)
    eyes: torch.Tensor,  # (B, 2, 2): right and left eye, (y, x) pixels
    has_face: torch.Tensor,  # (B,) bool
) -> torch.Tensor:
    """Square face crops (B, 3, F, F), F = 8 * floor(H/32) but at least 16; zeros without a face.

    Bilinear with aligned corners, written as two matrix products: the gradient is deterministic on
    every device and nothing waits for the host.
    """
    height, width = images.shape[-2:]
    size = max(16, 8 * (height // 32))  # 16: the deepest VGG layer halves four times
    centre, half = face_boxes(eyes, (height, width))
    rows = _sampling(centre[:, 0] - half, 2 * half, height, size).to(images.dtype)  # (B, F, H)
    columns = _sampling(centre[:, 1] - half, 2 * half, width, size).to(images.dtype)
    crops = rows[:, None] @ images @ columns[:, None].transpose(-1, -2)  # (B, 3, F, F)
    return torch.where(has_face[:, None, None, None], crops, torch.zeros_like(crops))


def face_loss(
    vgg: VGG19Features,
    fake: torch.Tensor,  # (B, 3, H, W) in [-1, 1]
    real: torch.Tensor,  # (B, 3, H, W)
    eyes: torch.Tensor,  # (B, 2, 2) eyes of the real image, (y, x) pixels
    has_face: torch.Tensor,  # (B,) bool
) -> torch.Tensor:
    """Content loss of the face crops; VGG sees ImageNet-standardised crops here.

    Samples without both eyes count as 0 in the mean over the batch.
    """
    fake_features, real_features = (
        vgg(standardise((crop_faces(x, eyes, has_face) + 1) / 2), CONTENT_LAYERS)
        for x in (fake, real.detach())
    )
    return content_loss(fake_features, real_features)
