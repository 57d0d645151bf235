"""Synthetic people: pictures of clothed people in many poses together with their 18 keypoints.

No data set of this field may be downloaded without asking; this one is made on the spot. Sampling
is split in two: an :class:`Identity` (body, hair, clothes) stays, a :class:`Pose` changes from
picture to picture.
This module is the public face; the work is done in the ``synthetic_*`` modules beside it.
"""

from data.synthetic_identity import Identity, sample_identity
from data.synthetic_picture import render, render_layers
from data.synthetic_pose import VIEWS, Pose, sample_pose
from data.synthetic_scene import BACKGROUNDS
from data.synthetic_sheet import contact_sheet
from data.synthetic_writer import SIZES, Settings, write_dataset

__all__ = [
    "BACKGROUNDS",
    "SIZES",
    "VIEWS",
    "Identity",
    "Pose",
    "Settings",
    "contact_sheet",
    "render",
    "render_layers",
    "sample_identity",
    "sample_pose",
    "write_dataset",
]
