"""How many cases the fuzz tests try: the same few hundred in every run, or as many new ones as
FUZZ_CASES says, of each kind::

    FUZZ_CASES=5000 python -m pytest -k fuzz
"""

import os

from hypothesis import HealthCheck, settings

CASES = int(os.environ.get("FUZZ_CASES", "0"))


def cases(usual: int) -> settings:
    """Settings of a test of ``usual`` cases."""
    return settings(
        max_examples=CASES or usual,
        deadline=None,
        derandomize=not CASES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
