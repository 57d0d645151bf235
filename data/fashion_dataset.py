"""DeepFashion In-shop in PATN's, DPTN's and GFLA's layout: ``--dataset_mode fashion``."""

from data.pose_dataset import PoseDataset
from util.tables.layouts import LAYOUTS


class FashionDataset(PoseDataset):
    """176 x 256 photographs and keypoints, shown to the networks at 256 x 256."""

    load_size = (256, 256)
    annotation_size = LAYOUTS["fashion"].annotation_size
    pairs_files = LAYOUTS["fashion"].pairs
    image_folders = ("{phase}", "{phase}_higher")  # the second: of the published step model
    annotation_files = LAYOUTS["fashion"].annotations
