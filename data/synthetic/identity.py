"""Who a synthetic person is: proportions, skin, hair, face and clothes, drawn at random."""

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKINS: tuple[Colour, ...] = (
    (0.98, 0.86, 0.77), (0.95, 0.79, 0.67), (0.88, 0.69, 0.55), (0.77, 0.57, 0.42),
    (0.60, 0.42, 0.30), (0.44, 0.30, 0.22),
)  # fmt: skip
HAIR_COLOURS: tuple[Colour, ...] = (
    (0.09, 0.07, 0.07), (0.20, 0.13, 0.09), (0.36, 0.22, 0.13), (0.55, 0.36, 0.18),
    (0.84, 0.68, 0.38), (0.62, 0.25, 0.12), (0.62, 0.61, 0.60),
)  # fmt: skip
NEUTRALS: tuple[Colour, ...] = (
    (0.93, 0.93, 0.91), (0.10, 0.10, 0.12), (0.42, 0.43, 0.46), (0.12, 0.17, 0.34),
    (0.78, 0.68, 0.52), (0.36, 0.25, 0.18),
)  # fmt: skip
PATTERNS = ("plain", "stripes", "bars", "checks", "dots", "logo")
WOMEN_HAIR = ("long", "long", "bob", "ponytail", "bun", "curly", "short")
MEN_HAIR = ("short", "short", "short", "cropped", "bald", "curly", "bob")


@dataclass(frozen=True)
class Texture:
    """A pattern in metres on the part it is attached to: ``kind`` is one of :data:`PATTERNS`."""

    kind: str
    colour: Colour
    accent: Colour
    period: float = 0.08


@dataclass(frozen=True)
class Body:
    """Proportions: ``height`` in metres, the others factors around one."""

    height: float
    shoulders: float
    hips: float
    waist: float
    bulk: float
    bust: float


@dataclass(frozen=True)
class Top:
    """Upper garment; ``sleeve`` is the covered share of the arm, ``neckline`` a depth in metres."""

    texture: Texture
    sleeve: float
    neckline: float
    v_neck: bool
    tucked: bool
    open_front: Colour | None
    collar: bool


@dataclass(frozen=True)
class Bottom:
    """Lower garment, trousers, skirt or dress; ``length`` is the covered share of the leg."""

    kind: str
    texture: Texture
    length: float
    flare: float
    belt: Colour | None


@dataclass(frozen=True)
class Identity:
    """Everything about a person that stays the same from picture to picture."""

    woman: bool
    body: Body
    skin: Colour
    lips: Colour
    iris: Colour
    hair: str
    hair_colour: Colour
    fringe: bool
    parting: float
    beard: bool
    top: Top
    bottom: Bottom
    shoes: Colour
    sole: Colour
    boots: bool

    @property
    def category(self) -> str:
        """The clothing category that a DeepFashion name has."""
        if self.bottom.kind == "dress":
            return "Dresses"
        if self.top.open_front is not None:
            return "Jackets_Coats" if self.woman else "Jackets_Vests"
        if self.top.sleeve <= 0.34 and not self.top.collar:
            return "Tees_Tanks"
        return "Blouses_Shirts" if self.woman else "Shirts_Polos"


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person; the same generator state gives the same person."""
    woman = bool(rng.random() < 0.6)
    skin = _jitter(rng, SKINS, 0.03)
    hair_styles = WOMEN_HAIR if woman else MEN_HAIR
    top, bottom = _outfit(rng, woman)
    shoes = _clothing_colour(rng, 0.5)
    return Identity(
        woman=woman,
        body=Body(
            bulk=float(np.clip(rng.normal(1.0, 0.09), 0.85, 1.25)),
            height=rng.normal(1.66 if woman else 1.77, 0.05),
            shoulders=rng.normal(0.93 if woman else 1.05, 0.03),
            hips=rng.normal(1.06 if woman else 0.96, 0.03),
            waist=rng.normal(0.88 if woman else 1.0, 0.04),
            bust=rng.uniform(0.75, 1.1) if woman else 0.0,
        ),
        skin=skin,
        lips=_mix(skin, (0.75, 0.15, 0.2), rng.uniform(0.35, 0.8) if woman else 0.25),
        iris=((0.25, 0.15, 0.08), (0.2, 0.35, 0.5), (0.25, 0.38, 0.2))[rng.integers(3)],
        hair=hair_styles[rng.integers(len(hair_styles))],
        hair_colour=_jitter(rng, HAIR_COLOURS, 0.03),
        fringe=woman and rng.random() < 0.35,
        parting=rng.uniform(-0.3, 0.3),
        beard=not woman and rng.random() < 0.3,
        top=top,
        bottom=bottom,
        shoes=shoes,
        sole=(0.92, 0.92, 0.9) if rng.random() < 0.4 else _mix(shoes, (0.0, 0.0, 0.0), 0.45),
        boots=rng.random() < 0.2,
    )


def _outfit(rng: np.random.Generator, woman: bool) -> tuple[Top, Bottom]:
    top_texture = _texture(rng, _clothing_colour(rng, 0.15))
    kind = str(rng.choice(("trousers", "skirt", "dress"), p=(0.55, 0.22, 0.23)))
    kind = kind if woman else "trousers"
    sleeve = float(rng.choice((0.0, 0.22, 0.34, 0.62, 1.0), p=(0.14, 0.16, 0.28, 0.1, 0.32)))
    open_front = _clothing_colour(rng, 0.6) if sleeve == 1.0 and rng.random() < 0.45 else None
    top = Top(
        texture=top_texture,
        sleeve=sleeve if woman or sleeve > 0 else 0.34,
        neckline=rng.uniform(0.02, 0.12 if woman else 0.07),
        v_neck=rng.random() < 0.4,
        tucked=rng.random() < 0.35,
        open_front=open_front if kind != "dress" else None,
        collar=sleeve > 0.3 and rng.random() < 0.35,
    )
    lengths, chances, flares, belted, neutral = {
        "dress": ((0.42, 0.6, 0.95), (0.5, 0.35, 0.15), (0.1, 0.6), 0.4, 0.5),
        "skirt": ((0.35, 0.5, 0.9), (0.45, 0.4, 0.15), (0.0, 0.7), 0.5, 0.7),
        "trousers": ((0.4, 0.8, 1.0), (0.2, 0.12, 0.68), (0.0, 1.0), 0.5, 0.7),
    }[kind]
    texture = top_texture
    if kind != "dress":
        colour = _distinct_colour(rng, texture.colour)
        patterned = rng.random() < (0.5 if kind == "skirt" else 0.22)
        texture = _texture(rng, colour) if patterned else Texture("plain", colour, colour)
        texture = Texture("plain", colour, colour) if texture.kind == "logo" else texture
    length, flare = float(rng.choice(lengths, p=chances)), rng.uniform(*flares)
    belt = _clothing_colour(rng, neutral) if rng.random() < belted else None
    return top, Bottom(kind, texture, length, flare, belt)


def _texture(rng: np.random.Generator, colour: Colour) -> Texture:
    kind = PATTERNS[rng.choice(len(PATTERNS), p=(0.46, 0.15, 0.07, 0.1, 0.1, 0.12))]
    return Texture(kind, colour, _distinct_colour(rng, colour), rng.uniform(0.06, 0.13))


def _clothing_colour(rng: np.random.Generator, neutral: float) -> Colour:
    if rng.random() < neutral:
        return _jitter(rng, NEUTRALS, 0.02)
    return _rounded(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.6, 1.0), rng.uniform(0.5, 1.0)))


def _distinct_colour(rng: np.random.Generator, other: Colour) -> Colour:
    """A clothing colour that is clearly different from ``other``."""
    for _ in range(21):
        colour = _clothing_colour(rng, 0.35)
        if np.linalg.norm(np.subtract(colour, other)) > 0.5:
            break
    return colour


def _jitter(rng: np.random.Generator, colours: tuple[Colour, ...], amount: float) -> Colour:
    colour = colours[rng.integers(len(colours))]
    return _rounded(np.clip(np.add(colour, rng.uniform(-amount, amount, 3)), 0.0, 1.0))


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    return _rounded(np.multiply(first, 1 - share) + np.multiply(second, share))


def _rounded(colour: np.ndarray | Colour) -> Colour:
    return tuple(round(float(channel), 4) for channel in colour)
