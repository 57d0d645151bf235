"""Any names of images: a result is paired with its own ground truth, or refused."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import cases
from util.errors import UserError
from util.metrics.folder import asked_results, pair_results
from util.names import result_name

# Names that are made of what result names are made of.
PARTS = st.sampled_from(["a", "b", "_2_", "_vis", "2", "_", "vis", "visor", "x", ".", "-1"])
# Files that begin with a dot are hidden: no images, by the rule of every folder.
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("".join).filter(lambda n: n[0] != ".")


def check(images: list[str], places: list[tuple[int, int]], give_pairs: bool) -> None:
    """Write images and results of pairs, and pair them again."""
    pairs = [
        (images[i % len(images)] + ".png", images[j % len(images)] + ".png") for i, j in places
    ]
    folder = Path(tempfile.mkdtemp())
    try:
        for name in images:
            _touch(folder / "gt" / f"{name}.png")
        truth = {}
        for source, target in pairs:
            name = result_name(source, target)
            truth.setdefault(name, set()).add(target)
            _touch(folder / "results" / name)
        asked = asked_results(list(dict.fromkeys(pairs))) if give_pairs else None
        found, _ = pair_results(folder / "results", folder / "gt", asked=asked)
    except UserError:
        return
    finally:
        shutil.rmtree(folder)
    for pair in found:
        assert pair.gt.name in truth[pair.name]
    assert len(found) == len(truth)


def _touch(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")


CASES = {
    "images": st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower),
    "places": st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
    "give_pairs": st.booleans(),
}


@cases(200)
@given(**CASES)
def test_a_result_is_paired_with_its_own_truth_or_refused(images, places, give_pairs):
    check(images, places, give_pairs)
