"""Synthetic people: pictures of clothed people in many poses together with their 18 keypoints.

No data set of this field may be downloaded without asking; this one is made on the spot. Sampling
is split in two: an :class:`Identity` (body, hair, clothes) stays, a :class:`Pose` changes from
picture to picture.
"""

from data.synthetic.identity import Identity, sample_identity
from data.synthetic.picture import BACKGROUNDS, pose_keypoints, render, render_layers
from data.synthetic.pose import VIEWS, Pose, sample_pose
from data.synthetic.write import SIZES, Settings, contact_sheet, write_dataset

__all__ = [
    "BACKGROUNDS",
    "SIZES",
    "VIEWS",
    "Identity",
    "Pose",
    "Settings",
    "contact_sheet",
    "pose_keypoints",
    "render",
    "render_layers",
    "sample_identity",
    "sample_pose",
    "write_dataset",
]
