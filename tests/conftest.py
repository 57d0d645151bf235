"""Make the tests independent of the folder they are started from."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A small synthetic data set in DeepFashion's layout: 4 training and 2 test people, 3 poses
    each."""
    from data.synthetic.write import write_dataset

    folder = tmp_path_factory.mktemp("people") / "fashion"
    write_dataset(folder, "fashion", identities=4, poses=3, seed=1, test_identities=2)
    return folder


@pytest.fixture(scope="session")
def market_people(tmp_path_factory):
    """The same in Market-1501's layout."""
    from data.synthetic.write import write_dataset

    folder = tmp_path_factory.mktemp("people") / "market"
    write_dataset(folder, "market", identities=4, poses=3, seed=1, test_identities=2)
    return folder


@pytest.fixture(autouse=True)
def own_handlers():
    """Signals reach the test runner again, also after a training that one of them stopped."""
    from util.run.main import StopRequest

    before = {number: signal.getsignal(number) for number in StopRequest.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
