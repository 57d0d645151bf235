"""``python data/generate_fashion_datasets.py``: runs the script of that name in script/."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    script = Path(__file__).resolve().parent.parent / "script" / "generate_fashion_datasets.py"
    runpy.run_path(str(script), run_name="__main__")
