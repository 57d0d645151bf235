"""Turned objects, faces, chairs: ``--dataset_mode view``. What the networks call pose is the view.

Pictures come from image folders ``<root>/<phase>/`` or from the ShapeNet HDF5 file of "Multi-view
to Novel view" (Sun et al., ECCV 2018), names as util/tables/views.py knows them.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.base_dataset import BaseDataset
from util.errors import UserError
from util.kinds import Kind, choice, positive_int, text
from util.tables import views as naming
from util.tables.manifest import folder_record
from util.tables.views import FolderStore, Source

VIEWS = Kind(
    "different labels with commas, axes with a semicolon: 0,2,4;0,10",
    list,
    lambda axes: naming.parse_views(";".join(map(",".join, axes))) == axes,
    read=naming.parse_views,
)


class ViewDataset(BaseDataset):
    """Pairs of pictures of one object, with the views of both.

    A sample has ``source_view`` and ``target_view``, int64 (K,), one index an axis, where the data
    sets of people have keypoints. Training: every picture is a source; its target is the same
    object at a random label of the first axis, the other axes unchanged (published). Otherwise
    object i is turned: source = its view number i modulo their count, at the first label of the
    other axes; targets = all labels of the first axis.
    """

    load_size = (256, 256)
    annotation_size = None  # there are no keypoints: results are saved at the load size

    def __init__(
        self,
        *args,
        views: Sequence[Sequence[str]] | None = None,  # of the checkpoint; None: those found
        training: bool = True,
        category: str | None = None,
        view_names: str = "auto",
        ang_skip: int = 20,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.training = training
        self.source = source = Source(self.root, self.phase, category, view_names, ang_skip)
        if isinstance(source.store, FolderStore):
            self.folder = source.store.folder
            self.record = folder_record(self.folder)
        else:
            source.store.check(source.split, source.list_path)
        self.full_turn = source.naming == "shapenet"
        self.views = tuple(map(tuple, views or source.views()))
        self._index = self._indices()
        self._turns = self._group()  # all views of an object along the first axis
        self._around = {name: turn for turn in self._turns.values() for name in turn}
        self.sources = list(source.split)
        self.pairs = [] if training else self._turn_pairs()[: self.max_pairs]
        self._size = source.store.image(self.sources[0]).size

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        add = parser.group("views")
        category = "of data_<category>.hdf5; default: the only one"
        add("--category --sub_dataset", text, None, category)
        names = "shapenet <object>_<h>_<v>, multipie (5 parts), object <object>_<view>"
        add("--view_names", choice(("auto", *naming.NAMINGS)), "auto", names)
        add("--ang_skip", positive_int, 20, "shapenet: degrees between the azimuths that are used")
        labels = "labels that the network knows, 0,2,4 (of two axes 0,2,4;0,10); default: all found"
        add("--views", VIEWS, None, labels)

    @classmethod
    def complete_options(cls, opt: Namespace) -> None:
        """Views of the checkpoint, or of the data; one channel of the pose maps for each."""
        if opt.views is None:
            asked = (opt.category, opt.view_names, opt.ang_skip)
            opt.views = list(map(list, Source(Path(opt.dataroot), opt.phase, *asked).views()))
        opt.view_counts = tuple(len(axis) for axis in opt.views)

    @classmethod
    def own_arguments(cls, opt: Namespace) -> dict[str, Any]:
        names = ("views", "category", "view_names", "ang_skip")
        return {name: getattr(opt, name) for name in names} | {"training": opt.is_train}

    def _indices(self) -> dict[str, torch.Tensor]:
        """Name -> index of its label on each axis, int64 (K,)."""
        result, where = {}, self.source.store.where
        for name, (_, labels) in self.source.split.items():
            if len(labels) != len(self.views):
                raise UserError(
                    f"{name} in {where} has {len(labels)} view labels, but the "
                    f"network knows views of {len(self.views)}: the data and the checkpoint differ"
                )
            seen = list(zip(labels, self.views, strict=True))
            for label, axis in seen:
                if label not in axis:
                    raise UserError(
                        f"{name} in {where} shows the view {label}, which the network does not "
                        f"know; expected one of {', '.join(axis)}: remove the picture or train "
                        "with it"
                    )
            result[name] = torch.tensor([axis.index(label) for label, axis in seen])
        return result

    def _group(self) -> dict[tuple, list[str]]:
        """(object, labels of the other axes) -> its pictures in the order of the first axis."""
        turns: dict[tuple, list[str]] = {}
        where = self.source.store.where
        for name, (thing, labels) in self.source.split.items():
            turns.setdefault((thing, *labels[1:]), []).append(name)
        for key, names in turns.items():
            names.sort(key=lambda name: int(self._index[name][0]))
            if len({int(self._index[name][0]) for name in names}) < len(names):
                raise UserError(
                    f"{where} has two pictures of one view of {key[0]}, {names[0]} is beside them; "
                    "remove one"
                )
        lonely = [key[0] for key, names in turns.items() if len(names) < 2]
        if lonely:
            raise UserError(
                f"{where}: {len(lonely)} objects have one view only, the first is {lonely[0]}; "
                "expected at least two of each: add views or remove them"
            )
        return turns

    def _turn_pairs(self) -> list[tuple[str, str]]:
        """Each object from one side to all: (source name, target name)."""
        first: dict[str, list[str]] = {}
        for (thing, *_), names in sorted(
            self._turns.items(), key=lambda turn: self._index[turn[1][0]][1:].tolist()
        ):
            first.setdefault(thing, names)
        order = self.source.objects()
        missing = [thing for thing in order if thing not in first]
        if missing:
            raise UserError(
                f"{self.source.object_list} lists {missing[0]}, of which "
                f"{self.source.store.where} has no view; add its pictures or remove the line"
            )
        turned = ((i, first[thing]) for i, thing in enumerate(order))
        return [(names[i % len(names)], target) for i, names in turned for target in names]

    def turns(self) -> dict[str, list[tuple[str, str]]]:
        """Source of each turned object -> its pairs in the order of the views."""
        turns: dict[str, list[tuple[str, str]]] = {}
        for pair in self.pairs:
            turns.setdefault(pair[0], []).append(pair)
        return turns

    def __len__(self) -> int:
        return len(self.sources) if self.training else len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch, row = divmod(index, len(self))
        if self.training:
            source = self.sources[row]
            around = self._around[source]
            rng = np.random.default_rng((self.seed, epoch, row))
            pair = source, around[int(rng.integers(len(around)))]
        else:
            pair = self.pairs[row]
        sample: dict[str, Any] = {}
        for role, name in zip(("source", "target"), pair, strict=True):
            sample[f"{role}_image"] = self.image(name)
            sample[f"{role}_view"] = self._index[name]
            sample[f"{role}_name"] = name
        return sample

    def decoded(self, name: str) -> Image.Image:
        store = self.source.store
        image = store.image(name)
        if image.size != self._size:
            raise UserError(
                f"{name} in {store.where} has {image.width} x {image.height} pixels (width x "
                f"height), but {self.sources[0]} has {self._size[0]} x {self._size[1]}; all views "
                "must have one size: make them again the same way"
            )
        return image
