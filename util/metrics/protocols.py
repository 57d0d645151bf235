"""Evaluation protocols as data: everything in which two published numbers of this field can differ.

One row of :data:`PROTOCOLS` answers how images are resized and padded, which SSIM kernels, LPIPS
weights and Inception networks are used and what happens to the last partial batch. Code elsewhere
reads this table and never asks for a protocol by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from util.errors import UserError


@dataclass(frozen=True)
class SSIM:
    """One SSIM definition: ``uniform`` window of ``size`` px or ``gaussian`` of sigma ``size``.

    ``data_range``: ``"full"`` is the whole range of the image type (255); ``"prediction"`` is the
    maximum minus the minimum of the generated image, an accident of the PATN script that
    its descendants kept.
    """

    kernel: str
    size: float
    sample_covariance: bool
    data_range: str = "full"

    def __str__(self) -> str:
        size = f"sigma {self.size:g}" if self.kernel == "gaussian" else self.size
        covariance = "sample" if self.sample_covariance else "population"
        span = "255" if self.data_range == "full" else "max - min of the result"
        return f"SSIM, {self.kernel} window {size}, {covariance} covariance, data range {span}"


@dataclass(frozen=True)
class LPIPS:
    """LPIPS backbone (``alex``, ``vgg``, ``squeeze``), version of its linear heads, batch rule."""

    net: str = "alex"
    version: str = "0.1"
    batch: int = 1
    remainder: str = "keep"


@dataclass(frozen=True)
class Inception:
    """An Inception network: ``weights`` (``torchvision``, ``pytorch-fid``) and input ``scaling``.

    ``historical``: ``x * std / 0.5 + (mean - 0.5) / 0.5`` with the ImageNet mean and std, applied
    to [0, 1] images although it is meant for standardised ones; ``symmetric``: ``2 x - 1``.
    """

    weights: str
    scaling: str

    def __str__(self) -> str:
        if self.weights == "torchvision":
            return f"torchvision Inception v3, {self.scaling} input scaling"
        return "TensorFlow Inception (pytorch-fid weights)"


@dataclass(frozen=True)
class FID:
    """Fréchet Inception distance; ``remainder``: ``drop`` or ``keep`` the last partial batch."""

    network: Inception
    batch: int = 64
    remainder: str = "keep"


@dataclass(frozen=True)
class KID:
    """Kernel Inception distance: unbiased cubic-kernel MMD over random subsets."""

    network: Inception
    subsets: int = 100
    subset_size: int = 1000
    seed: int = 2020


@dataclass(frozen=True)
class InceptionScore:
    """Inception score over contiguous splits of the sorted (or, with a seed, shuffled) images.

    ``drop_rest``: splits of floor(N / splits) images, the rest unused (MAGPT); otherwise all images
    are used and splits may differ by one. ``logits_bias``: whether the classifier's bias is added.
    ``padded``: images are padded as before SSIM, which no other network sees.
    """

    network: Inception
    splits: int = 1
    shuffle_seed: int | None = None
    logits_bias: bool = True
    drop_rest: bool = False
    padded: bool = False


@dataclass(frozen=True)
class Resize:
    """Bilinear resize by ``opencv`` or ``pil`` to (h, w) of every image before measuring."""

    library: str
    size: tuple[int, int]


TORCHVISION_HISTORICAL = Inception("torchvision", "historical")
TORCHVISION_SYMMETRIC = Inception("torchvision", "symmetric")
PYTORCH_FID = Inception("pytorch-fid", "symmetric")

SSIM_WINDOW51 = SSIM("uniform", 51, sample_covariance=True)
SSIM_GAUSSIAN = SSIM("gaussian", 1.5, sample_covariance=False, data_range="prediction")
SSIM_GAUSSIAN_FULL = SSIM("gaussian", 1.5, sample_covariance=False)
SSIM_SIGMA12 = SSIM("gaussian", 1.2, sample_covariance=False, data_range="prediction")
SSIM_UNIFORM7 = SSIM("uniform", 7, sample_covariance=True)


PAPER_FID = FID(TORCHVISION_HISTORICAL, batch=64, remainder="drop")
TF_SCORE = InceptionScore(PYTORCH_FID, splits=10, logits_bias=False)


@dataclass(frozen=True)
class Protocol:
    """How one group of papers measures; ``label`` heads every column and names every deviation.

    ``padding``: ``"white"`` adds white columns left and right until the image is square before
    PSNR, SSIM, L1 and MAE (never before a network), ``"none"`` leaves images as they are.
    ``ssim`` and ``lpips`` map column names to definitions. ``defaults`` are the metrics computed
    when none are asked for. ``resize`` comes before every metric, ``network_resize`` before FID,
    Inception score and LPIPS only. ``l1_range`` is the length of the range of values in L1.

    ``published``: column -> value of the paper ``published_by``, for the data set and for its
    Market form. It was measured on ``counts`` (real, result) images in the format ``image_format``.
    """

    name: str
    source: str
    padding: str
    ssim: Mapping[str, SSIM]
    lpips: Mapping[str, LPIPS]
    defaults: tuple[str, ...]
    fid: FID = PAPER_FID
    inception_score: InceptionScore = TF_SCORE
    kid: KID = KID(PYTORCH_FID)
    resize: Resize | None = None
    network_resize: Resize | None = None
    l1_range: int = 1
    real_set: str = "all images of the training folder"
    counts: tuple[int, int] | None = None
    image_format: str | None = None
    published_by: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    published_market: Mapping[str, float] = field(default_factory=dict)
    variants: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str:
        """Name with every deviation from the published definition, e.g. ``dptn-market-keep``."""
        return "-".join((self.name, *self.variants))


_RECONSTRUCTION = ("psnr", "ssim", "l1", "mae")
_UNPADDED = ("psnr_unpadded", "ssim_unpadded")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="dptn",
            source="DPTN (CVPR 2022) and DPTN-TA (TVCG 2023): metrics/metrics.py",
            padding="white",
            ssim={"ssim": SSIM_WINDOW51, "ssim_256": SSIM_GAUSSIAN},
            lpips={"lpips": LPIPS("alex", "0.1")},
            counts=(48_674, 8_570),
            image_format="JPEG",
            published_by="DPTN (CVPR 2022)",
            published={"psnr": 19.1492, "ssim_256": 0.7782, "lpips": 0.1957, "fid": 11.4664},
            published_market={"psnr": 14.5207, "ssim_256": 0.2854, "lpips": 0.2711, "fid": 18.9946},
            defaults=(*_RECONSTRUCTION, *_UNPADDED, "lpips", "fid"),
        ),
        Protocol(
            name="patn",
            source="PATN (CVPR 2019): tool/getMetrics_*.py",
            padding="white",
            ssim={"ssim": SSIM_GAUSSIAN},
            lpips={"lpips": LPIPS("alex", "0.1")},
            inception_score=replace(TF_SCORE, padded=True),
            l1_range=2,
            counts=(48_674, 8_570),
            published_by="PATN (CVPR 2019)",
            published={"ssim": 0.773, "inception_score": 3.209},
            published_market={"ssim": 0.311, "mask_ssim": 0.811},
            defaults=("ssim", "ssim_unpadded", "inception_score"),
        ),
        Protocol(
            name="gfla",
            source="GFLA (CVPR 2020): script/metrics.py; its paper's LPIPS is version 0.0",
            padding="none",
            ssim={"ssim": SSIM_WINDOW51, "ssim_256": SSIM_GAUSSIAN},
            lpips={
                "lpips": LPIPS("alex", "0.1", batch=64, remainder="drop"),
                "lpips_v0.0": LPIPS("alex", "0.0", batch=64, remainder="drop"),
            },
            counts=(48_674, 8_570),
            image_format="JPEG",
            published_by="GFLA (CVPR 2020)",
            published={"lpips_v0.0": 0.2341, "fid": 10.573},
            published_market={"lpips_v0.0": 0.2817, "fid": 19.751},
            defaults=(*_RECONSTRUCTION, "lpips", "fid"),
        ),
        Protocol(
            name="nted_pidm",
            source="NTED (CVPR 2022) and PIDM (CVPR 2023) tables: PIDM's utils/metrics.py",
            padding="none",
            ssim={"ssim": SSIM_SIGMA12, "ssim_window51": SSIM_WINDOW51},
            lpips={"lpips": LPIPS("alex", "0.1", batch=64, remainder="drop")},
            network_resize=Resize("opencv", (256, 176)),
            counts=(48_674, 8_570),
            image_format="PNG",
            published_by="PIDM (CVPR 2023)",
            published={"ssim": 0.7312, "lpips": 0.1678, "fid": 6.3671},
            published_market={"ssim": 0.3054, "lpips": 0.2415, "fid": 14.451},
            defaults=("psnr", "ssim", "lpips", "fid"),
        ),
        Protocol(
            name="magpt",
            source="MAGPT: eval.py; 256x256 images with their margins",
            padding="none",
            ssim={"ssim": SSIM_UNIFORM7},
            lpips={f"lpips_{net}": LPIPS(net, "0.1") for net in ("alex", "vgg", "squeeze")},
            inception_score=InceptionScore(TORCHVISION_SYMMETRIC, drop_rest=True),
            image_format="JPEG",
            defaults=("ssim", "lpips", "inception_score"),
        ),
        Protocol(
            name="dptn_step",
            source="DPTN step generation: eval.py (protocol A)",
            padding="white",
            ssim={"ssim": SSIM_WINDOW51, "ssim_256": SSIM_GAUSSIAN_FULL},
            lpips={"lpips": LPIPS("alex", "0.1")},
            fid=replace(PAPER_FID, remainder="keep"),
            resize=Resize("pil", (256, 176)),
            counts=(48_674, 8_570),
            defaults=(*_RECONSTRUCTION, "lpips", "fid"),
        ),
        Protocol(
            name="standard",
            source="the definitions of the original metric papers, as today's libraries have them",
            padding="none",
            ssim={"ssim": SSIM_GAUSSIAN_FULL},
            lpips={"lpips_alex": LPIPS("alex", "0.1"), "lpips_vgg": LPIPS("vgg", "0.1")},
            fid=FID(PYTORCH_FID),
            inception_score=replace(TF_SCORE, shuffle_seed=2020),
            real_set="the folder given with --fid_real_path",
            defaults=(*_RECONSTRUCTION, "ms_ssim", "lpips", "fid"),
        ),
    )
}


def find_protocol(name: str, market: bool = False, remainder: str | None = None) -> Protocol:
    """The protocol of a name, with deviations spelled out in its label.

    ``market`` takes the Market-1501 form of a protocol (no padding, no resize, 128x64 as it is);
    ``remainder`` (``keep`` / ``drop``) overrides what FID and LPIPS do with the last batch.
    Raises UserError for an unknown name.
    """
    if name not in PROTOCOLS:
        near = get_close_matches(name, PROTOCOLS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(PROTOCOLS)}."
        raise UserError(f"there is no evaluation protocol {name!r}; {hint}")
    protocol = PROTOCOLS[name]
    if market:
        protocol = replace(
            protocol,
            padding="none",
            resize=None,
            network_resize=None,
            counts=(12_936, 12_000) if protocol.counts else None,
            published=protocol.published_market,
            defaults=tuple(m for m in protocol.defaults if m not in _UNPADDED),
            variants=("market",),
        )
    if remainder and remainder != protocol.fid.remainder:
        protocol = replace(
            protocol,
            fid=replace(protocol.fid, remainder=remainder),
            lpips={k: replace(d, remainder=remainder) for k, d in protocol.lpips.items()},
            variants=(*protocol.variants, remainder),
        )
    return protocol


def kept(count: int, rule: LPIPS | FID) -> int:
    """How many of ``count`` sorted images a rule measures: all, or whole batches only.

    A set smaller than the batch is one batch, as in the published scripts.
    """
    if rule.remainder == "keep" or count == 0:
        return count
    batch = min(rule.batch, count)
    return count // batch * batch
