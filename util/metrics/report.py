"""What an evaluation leaves behind: a table, metrics.json and metrics.csv."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from util.errors import UserError
from util.files import make_folder, write_file
from util.manifest import folder_record
from util.metrics.generation import describe_generation
from util.metrics.measurement import Evaluation, Score, Settings

LIBRARIES = (
    *("numpy", "scipy", "scikit-image", "opencv-python-headless", "pillow", "torch"),
    *("torchvision", "torchmetrics", "lpips", "pytorch-fid", "torch-fidelity"),
)


def number(value: float | None) -> float | str | None:
    """A float as JSON has it: NaN becomes null, infinity the string "inf"."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def report_dict(evaluation: Evaluation, settings: Settings) -> dict[str, object]:
    """The content of metrics.json."""
    return {
        "results": str(evaluation.results),
        "ground_truth": str(evaluation.gt),
        "real": None if evaluation.real is None else str(evaluation.real),
        "metrics": {score.column: _score_dict(score) for score in evaluation.scores},
        "refused": evaluation.refused,
        "pairs": len(evaluation.pairs),
        "left_out": evaluation.left_out,
        "notes": evaluation.notes,
        "images": {name: facts.summary() for name, facts in evaluation.images.items()},
        "protocols": [{"label": p.label, **asdict(p)} for p in evaluation.protocols],
        "checkpoint": evaluation.generation,
        "weights": evaluation.weights.used,
        "settings": {
            "device": settings.device,
            "pairing": settings.pairing,
            "allow_missing": settings.allow_missing,
            "estimator": settings.estimator_name,
            "reference": settings.reference_name,
        },
        "prepared": {
            "ground_truth": folder_record(evaluation.gt),
            "real": None if evaluation.real is None else folder_record(evaluation.real),
        },
        "versions": library_versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _score_dict(score: Score) -> dict[str, object]:
    return {
        "value": number(score.value),
        "std": number(score.std),
        "standard_error": number(score.standard_error),
        "count": score.count,
        "higher_is_better": score.higher_is_better,
        "definition": score.definition,
        **score.details,
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library that a number can depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def report_folder(output_dir: str | None, name: str, results: Sequence[str | Path]) -> Path:
    """``<output_dir>/<name>``; by default in ./eval_results, and beside the results if they have
    that name.

    GFLA's published commands generate into ./eval_results/fashion and measure it as ``fashion``.
    """
    if output_dir is not None:
        return Path(output_dir) / name
    output = Path("eval_results") / name
    if output.resolve() in [Path(folder).resolve() for folder in results]:
        return output.with_name(f"{output.name}_metrics")
    return output


def check_output_folder(output: Path, measured: Sequence[str | Path | None]) -> None:
    """Raise UserError when the report would land inside a measured folder."""
    for folder in filter(None, measured):
        if output.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(
                f"the report would be written to {output}, inside the measured folder {folder}; "
                "choose another place with --output_dir."
            )


def write_report(evaluation: Evaluation, settings: Settings, output: str | Path) -> Path:
    """Write metrics.json and metrics.csv (one row per image) into the folder ``output``."""
    output = Path(output)
    check_output_folder(output, (evaluation.results, evaluation.gt, evaluation.real))
    make_folder(output)
    text = json.dumps(report_dict(evaluation, settings), indent=1, ensure_ascii=False)
    write_file(output / "metrics.json", text.encode("utf-8"))
    write_file(output / "metrics.csv", _csv(evaluation).encode("utf-8"))
    return output


def _csv(evaluation: Evaluation) -> str:
    scores = [score for score in evaluation.scores if score.per_image is not None]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "target", *(score.column for score in scores)])
    for i, pair in enumerate(evaluation.pairs):
        writer.writerow([pair.name, pair.target, *(repr(float(s.per_image[i])) for s in scores)])
    return text.getvalue()


def table(evaluation: Evaluation) -> str:
    """The report for the screen: one line for each column, then what was refused."""
    rows = [("column", "value", "± s.e.", "images", "definition")]
    for score in evaluation.scores:
        error = "" if score.standard_error is None else f"{score.standard_error:.2g}"
        rows.append((score.column, f"{score.value:.4f}", error, str(score.count), score.definition))
    lines = [describe_generation(evaluation.generation), *aligned(rows)]
    lines += [f"note: {note}" for note in evaluation.notes]
    lines += [
        f"note: {s.column}: {s.details['note']}" for s in evaluation.scores if "note" in s.details
    ]
    lines += [f"left out, {kind}: {len(names)}" for kind, names in evaluation.left_out.items()]
    lines += [f"{name}: not computed: {why}" for name, why in evaluation.refused.items()]
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]], right: Mapping[int, bool] | None = None) -> list[str]:
    """Rows as lines of equal columns; columns 1 and up to the last but one are flush right."""
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last + 1)]
    return [
        "  ".join(
            cell.ljust(widths[i]) if i in (0, last) else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
