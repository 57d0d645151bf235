"""DeepFashion In-shop in PATN's, DPTN's and GFLA's layout: ``--dataset_mode fashion``."""

from data.pose_dataset import PoseDataset


class FashionDataset(PoseDataset):
    """176 x 256 photographs, shown to the networks at 256 x 256; keypoints in the 256 x 176 frame.

    ``fasion`` is the spelling of the published files; the correct one is accepted too.
    """

    load_size = (256, 256)
    annotation_size = (256, 176)
    pairs_files = tuple(
        f"{word}{kind}-pairs-{{phase}}.csv"
        for kind in ("-resize", "")
        for word in ("fasion", "fashion")
    )
    annotation_files = tuple(
        f"{word}{kind}-annotation-{{phase}}.csv"
        for kind in ("-resize", "")
        for word in ("fasion", "fashion")
    )
