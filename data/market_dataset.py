"""Market-1501 in PATN's, DPTN's and GFLA's layout: ``--dataset_mode market``."""

from argparse import ArgumentParser

from data.pose_dataset import AffineRanges, PoseDataset
from util.tables.layouts import LAYOUTS


class MarketDataset(PoseDataset):
    """64 x 128 photographs; keypoints in the same 128 x 64 frame."""

    load_size = annotation_size = LAYOUTS["market"].annotation_size
    pairs_files = LAYOUTS["market"].pairs
    annotation_files = LAYOUTS["market"].annotations
    augmentation = AffineRanges(angle=(-5, 5), shift=(-5, 5), scale=(0.95, 1.05))

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        PoseDataset.modify_options(parser, is_train)
        if is_train:
            parser.set_defaults(save_by_iter=True)
