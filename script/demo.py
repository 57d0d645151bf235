"""Pose it yourself: a page with a skeleton to drag, and the picture of it while it is dragged.

    python -m script.demo --checkpoint checkpoints/RUN

opens on this computer only. People and poses are those of the run's data set, or synthetic ones
where that is not here; own photos stay in the memory of this program. Ctrl-C ends it.
"""

import io
import os
import re
import sys
import threading
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch
from PIL import Image

from api import PoseTransfer
from data.gallery import PRESETS, DatasetSamples, Samples, SyntheticSamples, preset
from models.base_model import Explanation
from models.estimators import PersonFinder
from options.parser import DATA, Parser, add_device
from script.attention import open_dataset
from script.transfer import add_checkpoint_options, add_estimator_options, load, person_finder
from util.errors import UserError
from util.image import photo_from_bytes
from util.keypoint_formats import checked_keypoints
from util.kinds import folder_name, text, whole_number
from util.person.crop import Box, cut, in_photo, person_box, to_frame
from util.person.motion import retarget
from util.run.device import choose_device
from util.run.main import run_main
from util.show.attention import flow_source, maps_at
from util.show.server import PageServer, Reply, Request, Route, page_files
from util.skeleton import JOINTS, LIMBS, present
from util.tables.poses import poses_in
from util.tensors import keep_last_result

PAGE = Path(__file__).resolve().parent / "demo_page"
PORT = 8097
MAX_UPLOAD = 24_000_000  # bytes of one photo
MAX_SIDE = 1536  # pixels of an own photo that are kept; the networks see fewer
MAX_OWN = 12  # own photos in memory; the oldest is forgotten
SAMPLES_A_PAGE = 24
THUMBNAIL_ROWS = 160
SHOWN_ROWS = 512  # at most, of the source picture on the page
FAR = 10  # frames; joints further away are no pose


@dataclass(frozen=True)
class Source:
    """A person to be moved, as the page and the network see it."""

    name: str
    image: Image.Image  # what the network is given, at its load size
    shown: Image.Image  # what the page shows, in the shape of the annotation frame
    keypoints: np.ndarray  # (18, 2) in the annotation frame
    photo: Image.Image | None = None  # an own photo, and what part of it this is
    box: Box | None = None


class Studio:
    """What the page asks for: people, poses and pictures. Its calls may come from many threads."""

    def __init__(self, transfer: PoseTransfer, samples: Samples, find: PersonFinder | None):
        self.transfer, self.samples, self.find = transfer, samples, find
        self.frame = transfer.annotation_size
        self.sample = lru_cache(maxsize=4 * SAMPLES_A_PAGE)(lambda i: Source(*samples(i)))
        self._own: dict[str, Source] = {}  # oldest first
        self._lock = threading.Lock()
        encoder = getattr(transfer.model.networks.get("G"), "source_encoder", None)
        if encoder is not None:  # of DPTN: the person stays while the pose is dragged
            keep_last_result(encoder)
        self._explained: tuple[Any, Explanation | None] = (None, None)  # of the last origin()

    def routes(self) -> list[Route]:
        """All calls of the page."""
        one = r"/source/([a-z0-9]{1,32})"
        return [
            Route("GET", "/start", self.start),
            Route("GET", "/samples/([0-9]{1,9})", self.list_samples),
            Route("GET", "/thumbnail/([0-9]{1,9})", self.thumbnail),
            Route("GET", one, self.source),
            Route("GET", f"{one}/picture", self.source_picture),
            Route("POST", f"{one}/crop", self.crop),
            Route("POST", "/photo", self.photo, "photo", MAX_UPLOAD),
            Route("POST", "/pose", self.pose, "photo", MAX_UPLOAD),
            Route("POST", "/fit", self.fit),
            Route("POST", "/picture", self.picture, "picture"),
            Route("POST", "/origin", self.origin, "picture"),
        ]

    def start(self, request: Request) -> dict[str, Any]:
        """Everything the page needs to know at first."""
        poses = [{"name": n, "keypoints": preset(n, self.frame).tolist()} for n in PRESETS]
        return {
            "title": self.transfer.model.opt.name,
            "model": self.transfer.model.opt.model,
            "load_size": self.transfer.load_size,
            "frame": self.frame,
            "joints": JOINTS,
            "limbs": LIMBS,
            "presets": poses,
            "samples": len(self.samples),
            "max_upload": MAX_UPLOAD,
        }

    def list_samples(self, request: Request) -> list[dict[str, Any]]:
        """The samples from a number on: their ids, names and keypoints."""
        first = int(request.words[0])
        numbers = range(first, min(first + SAMPLES_A_PAGE, len(self.samples)))
        return [self._described(str(number)) for number in numbers]

    def thumbnail(self, request: Request) -> Reply:
        """A small picture of a sample."""
        shown = self._source(request.words[0]).shown.copy()
        shown.thumbnail((10 * THUMBNAIL_ROWS, THUMBNAIL_ROWS))
        return _encoded(shown, "JPEG", quality=85)

    def source(self, request: Request) -> dict[str, Any]:
        """Name and keypoints of a source."""
        return self._described(request.words[0])

    def source_picture(self, request: Request) -> Reply:
        """The picture of a source."""
        return _encoded(self._source(request.words[0]).shown, "PNG", compress_level=1)

    def photo(self, request: Request) -> dict[str, Any]:
        """A photo to be moved: its person is cut out, or the skeleton is left to be placed."""
        name = _file_name(request)
        photo = _photo(request.body, name)
        try:
            box, points = self._framed(self._found(photo, name))
            found, note = True, self.transfer.remark or ""
        except UserError as error:
            box, points = _whole(photo, self.frame), preset("Stand", self.frame)
            found = False
            note = f"{error.sentence}. Put the skeleton onto the person by hand, then crop to it."
        source = self._cut(name, photo, box, points)
        return {**self._keep(source), "note": note, "found": found}

    def crop(self, request: Request) -> dict[str, Any]:
        """The same photo, cut out around the skeleton that was put on it."""
        source = self._source(request.words[0])
        if source.photo is None or source.box is None:
            raise UserError("a picture of the data set is complete; only an own photo is cropped")
        points = self._keypoints(request.json(), "source_keypoints", "the skeleton")
        box, points = self._framed(in_photo(points, source.box, self.frame))
        return self._keep(self._cut(source.name, source.photo, box, points))

    def pose(self, request: Request) -> dict[str, Any]:
        """The pose of a photo or of a keypoint file, in the annotation frame."""
        name, framed = _file_name(request), False
        if request.body.lstrip()[:1] in (b"{", b"["):
            _, points, framed, *_ = poses_in(request.body, name)[0]
        else:
            points = self._found(_photo(request.body, name), name)
        points = points if framed else self._framed(points)[1]
        return {"keypoints": points.tolist(), "name": name}

    def fit(self, request: Request) -> dict[str, Any]:
        """A pose with the limb lengths of the person who takes it."""
        body, pose = self._skeletons(request.json())
        return {"keypoints": retarget(pose, body, self.frame).tolist()}

    def picture(self, request: Request) -> Reply:
        """The person of a source in a pose, PNG; how long it took stands in a header."""
        fields = request.json()
        source, (own, target) = self._source(fields.get("source")), self._skeletons(fields)
        began = time.perf_counter()
        result = self.transfer.transfer(source.image, target, own, (source.name, ""))
        spent = {"X-Milliseconds": f"{1000 * (time.perf_counter() - began):.1f}"}
        return replace(_encoded(result, "PNG", compress_level=1), headers=spent)

    def origin(self, request: Request) -> dict[str, Any]:
        """Where a point of the picture comes from: a map over the person's picture, 255 at its
        largest value, or the place that the flow field points to."""
        fields = request.json()
        point = self._point(fields.get("point"))
        source, (own, target) = self._source(fields.get("source")), self._skeletons(fields)
        key = (fields["source"], own.tobytes(), target.tobytes())
        if self._explained[0] != key:  # a pointer that moves over one picture asks many times
            self._explained = key, self.transfer.explain(source.image, target, own)
        told = self._explained[1]
        if told.attention:
            mean = torch.stack(told.attention)[:, 0].mean(dim=(0, 1)).cpu().numpy()
            found = maps_at(mean, point, self.frame)
            return {"map": (255 * found / found.max()).astype(int).tolist()}
        if told.flows:
            place = flow_source(told.flows[-1][0].cpu().numpy(), point, self.frame)
            return {"place": place.tolist()}
        raise UserError(
            f"--model {self.transfer.model.opt.model} tells nothing of single points; expected a "
            "checkpoint of DPTN, poseflownet or pose"
        )

    def _source(self, name: Any) -> Source:
        found = self._own.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and re.fullmatch("[0-9]{1,9}", name):
            found = self.sample(int(name)) if int(name) < len(self.samples) else None
        if found is None:
            raise UserError(
                f"there is no person {str(name)[:40]!r} here (any more); choose a thumbnail, or "
                "give your photo again"
            )
        return found

    def _keep(self, source: Source) -> dict[str, Any]:
        name = f"own{token_hex(8)}"
        with self._lock:
            self._own[name] = source
            if len(self._own) > MAX_OWN:
                del self._own[next(iter(self._own))]
        return self._described(name)

    def _described(self, name: str) -> dict[str, Any]:
        source = self._source(name)
        return {"id": name, "name": source.name, "keypoints": source.keypoints.tolist(),
                "own": source.photo is not None}  # fmt: skip

    def _found(self, photo: Image.Image, name: str) -> np.ndarray:
        """Keypoints of the person in a photo, in its pixels."""
        if self.find is None:
            raise UserError(f"{name}: this program was started with --estimator none")
        return self.find(photo, name)

    def _framed(self, points: np.ndarray) -> tuple[Box, np.ndarray]:
        """The box around a person and the keypoints in the annotation frame."""
        box = person_box(points, self.frame)
        return box, to_frame(points, box, self.frame)

    def _cut(self, name: str, photo: Image.Image, box: Box, points: np.ndarray) -> Source:
        crop = cut(photo, box)
        rows = min(SHOWN_ROWS, max(crop.height, self.frame[0]))
        shown = crop.resize(_wide(rows, self.frame), Image.Resampling.BICUBIC)
        image = crop.resize(self.transfer.load_size[::-1], Image.Resampling.BILINEAR)
        return Source(name, image, shown, points, photo, box)

    def _skeletons(self, fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of the person and of the pose to take."""
        own = self._keypoints(fields, "source_keypoints", "the skeleton of the person")
        return own, self._keypoints(fields, "keypoints", "the pose")

    def _point(self, value: Any) -> tuple[float, float]:
        """A (y, x) inside the frame."""
        match value:
            case [int() | float() as y, int() | float() as x]:
                if 0 <= y < self.frame[0] and 0 <= x < self.frame[1]:
                    return y, x
        raise UserError(
            f"the point {str(value)[:60]} lies outside the picture; expected y and x below "
            f"{self.frame[0]} and {self.frame[1]}"
        )

    def _keypoints(self, fields: dict[str, Any], key: str, where: str) -> np.ndarray:
        points = checked_keypoints(fields.get(key), where)
        if not present(points).any():
            raise UserError(f"{where} has no joint; show at least one")
        if (np.abs(points) > FAR * max(self.frame)).any():
            raise UserError(
                f"{where} has a joint at {np.abs(points).max():.3g}; expected pixels of the frame "
                f"of {self.frame[0]} x {self.frame[1]}"
            )
        return points


def _encoded(image: Image.Image, kind: str, **options: int) -> Reply:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Reply(buffer.getvalue(), f"image/{kind.lower()}")


def _file_name(request: Request) -> str:
    """What the page calls an upload: a label for messages, never the name of a file here."""
    name = request.query.get("name", "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:80] or "the upload"


def _photo(content: bytes, name: str) -> Image.Image:
    photo = photo_from_bytes(content, name)
    photo.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    return photo


def _wide(rows: int, frame: tuple[int, int]) -> tuple[int, int]:
    """(w, h) of ``rows`` rows in the shape of the frame (h, w)."""
    return max(1, round(rows * frame[1] / frame[0])), rows


def _whole(photo: Image.Image, frame: tuple[int, int]) -> Box:
    """The smallest box in the shape of the frame that holds a photo."""
    rows = max(photo.height, round(photo.width * frame[0] / frame[1]))
    width, height = _wide(rows, frame)
    return Box((photo.height - height) // 2, (photo.width - width) // 2, height, width)


def find_samples(opt: Namespace, transfer: PoseTransfer) -> Samples:
    """People of the data set that the options or the run name, else synthetic ones."""
    model = transfer.model
    try:
        return DatasetSamples(open_dataset(model, opt.dataroot or model.opt.dataroot, opt.phase))
    except UserError as error:
        if opt.dataroot is not None:
            raise
        print(f"synthetic people are shown, for {error.sentence}")
        return SyntheticSamples(transfer.load_size, transfer.annotation_size)


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add_checkpoint_options(parser)
    add = parser.group("people and page")
    add(DATA, text, None, "data set of the thumbnails; default: that of the run")
    add("--phase", folder_name, "test", "its part: train, test or another")
    add("--port", whole_number(0, 65535), PORT, "where the page is found; 0: any free port")
    add_device(add)
    add_estimator_options(parser)
    return parser


def build_server(opt: Namespace) -> PageServer:
    """Load everything that the options name, and take the port."""
    device = choose_device(opt.device)
    transfer = load(opt, device)
    find = None if opt.estimator == "none" else person_finder(opt, device)
    studio = Studio(transfer, find_samples(opt, transfer), find)
    return PageServer(page_files(PAGE), studio.routes(), opt.port)


def main(argv: list[str] | None = None) -> None:
    """Parse, load, serve until Ctrl-C."""
    opt = build_parser().parse(argv)
    if "OMP_NUM_THREADS" not in os.environ:  # the browser beside it wants a core, too
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    build_server(opt).run(lambda url: print(f"open {url} in a browser; Ctrl-C ends it", flush=True))


if __name__ == "__main__":
    run_main(main)
