"""Market-1501 in PATN's, DPTN's and GFLA's layout: ``--dataset_mode market``."""

from argparse import ArgumentParser

from data.augmentation import AffineRanges
from data.pose_dataset import PoseDataset


class MarketDataset(PoseDataset):
    """64 x 128 photographs; keypoints in the same 128 x 64 frame."""

    load_size = (128, 64)
    annotation_size = (128, 64)
    pairs_files = ("market-pairs-{phase}.csv",)
    annotation_files = ("market-annotation-{phase}.csv",)
    augmentation = AffineRanges(angle=(-5, 5), shift=(-5, 5), scale=(0.95, 1.05))

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        PoseDataset.modify_options(parser, is_train)
        if is_train:
            parser.set_defaults(save_by_iter=True)
