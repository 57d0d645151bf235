"""What an evaluation leaves behind: a table for the screen, metrics.json, metrics.csv, comparisons.

The page index.html is written by :mod:`util.metrics.page`.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from util.errors import UserError
from util.files import check_writable, make_folder, write_file
from util.metrics.folder import GENERATION_FILE
from util.metrics.registry import Evaluation
from util.tables.manifest import folder_record

if TYPE_CHECKING:
    from pandas import DataFrame

OMITTED = ("column", "per_image", "details")  # of a score, in metrics.json
LIBRARIES = (  # that a number can depend on
    *("numpy", "scipy", "scikit-image", "opencv-python-headless", "pillow"),
    *("torch", "torchvision", "lpips", "pytorch-fid"),
)


def check_output_folder(output: Path, measured: Sequence[str | Path | None]) -> None:
    """Raise UserError when the report would land inside a measured folder or cannot be written."""
    for folder in filter(None, measured):
        if output.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(
                f"the report would be written to {output}, inside the measured folder {folder}; "
                "choose another place with --output_dir."
            )
    try:
        check_writable(output / "metrics.json")
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')} with --output_dir.") from None


def write_report(evaluation: Evaluation, output: Path) -> None:
    """Write metrics.json and metrics.csv into the folder ``output``.

    The table has a row for each result (``name``): its target and every score of two images.
    """
    from pandas import DataFrame, Index  # slow to import

    make_folder(output)
    text = json.dumps(report_dict(evaluation), indent=1, ensure_ascii=False)
    write_file(output / "metrics.json", text.encode("utf-8", "surrogateescape"))
    columns = {"target": [pair.gt.name for pair in evaluation.pairs]}
    columns |= {score.column: score.per_image for score in evaluation.image_scores}
    names = Index([pair.name for pair in evaluation.pairs], name="name")
    write_csv(output / "metrics.csv", DataFrame(columns, names))


def write_csv(path: Path, frame: DataFrame) -> None:
    """Write a table as CSV with all digits; what a spreadsheet would compute is quoted as text."""
    frame = frame.rename(index=_harmless).map(_harmless)
    text = frame.to_csv(lineterminator="\n")
    write_file(path, text.encode("utf-8", "surrogateescape"))


def _harmless(cell: object) -> object:
    dangerous = isinstance(cell, str) and cell.startswith(("=", "+", "@", "\t", "\r"))
    return f"'{cell}" if dangerous else cell


def report_dict(evaluation: Evaluation) -> dict[str, object]:
    """The content of metrics.json."""
    real, settings, libraries = evaluation.real, evaluation.settings, {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)  # of two installations the one that is imported
    return {
        "results": str(evaluation.results),
        "ground_truth": str(evaluation.gt),
        "real": None if real is None else str(real),
        "metrics": {
            score.column: {k: number(v) for k, v in vars(score).items() if k not in OMITTED}
            | score.details
            for score in evaluation.scores
        },
        "refused": evaluation.refused,
        "pairs": len(evaluation.pairs),
        "left_out": evaluation.left_out,
        "notes": evaluation.notes,
        "images": {
            name: {
                "count": len(facts.size_of),
                "sizes": dict(facts.sizes.most_common()),
                "formats": dict(facts.formats.most_common()),
            }
            for name, facts in evaluation.images.items()
        },
        "protocols": [{"label": p.label, **asdict(p)} for p in evaluation.protocols],
        "checkpoint": evaluation.generation or None,
        "weights": evaluation.weights.used,
        "settings": {key: vars(settings)[key] for key in ("device", "pairing", "allow_missing")}
        | {"estimator": settings.estimator_name, "reference": settings.reference_name},
        "prepared": {
            "ground_truth": folder_record(evaluation.gt),
            "real": None if real is None else folder_record(real),
        },
        "versions": {"python": platform.python_version()} | libraries,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def number(value: object) -> object:
    """A value as JSON has it: NaN becomes null, infinity the string "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


HEADS = ("column", "value", "± s.e.", "images", "published", "definition")


def score_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The scores as rows of text under :data:`HEADS`."""
    rows = []
    for score in evaluation.scores:
        error = "" if score.standard_error is None else f"{score.standard_error:.2g}"
        published = "" if score.published is None else f"{score.published:g}"
        value = f"{score.value:.4f}"
        rows.append((score.column, value, error, f"{score.count:,}", published, score.definition))
    return rows


def remarks(evaluation: Evaluation) -> list[str]:
    """What belongs to the numbers, a sentence each: notes, what was left out, what was refused."""
    lines, scores = [], evaluation.scores
    for protocol in evaluation.protocols:
        known = [
            f"{score.column} {score.published:g}"
            for score in scores
            if score.column.startswith(f"{protocol.label}.") and score.published is not None
        ]
        if known:
            lines.append(f"published by {protocol.published_by}: {', '.join(known)}")
    lines += [f"note: {note}" for note in evaluation.notes]
    lines += [f"note: {s.column}: {s.details['note']}" for s in scores if "note" in s.details]
    lines += [f"left out, {kind}: {len(names)}" for kind, names in evaluation.left_out.items()]
    return lines + [f"{name}: not computed: {why}" for name, why in evaluation.refused.items()]


def origin(evaluation: Evaluation) -> str:
    """What made the images, in a line."""
    generation = evaluation.generation
    if not generation:
        return f"generator: unknown (no {GENERATION_FILE})"
    keys = [key for key in ("model", "name", "checkpoint", "which_epoch") if generation.get(key)]
    parts = [f"{key} {generation[key]}" for key in keys]
    digest = str(generation.get("sha256") or "")[:12]
    return "generator: " + ", ".join(parts + [f"sha256 {digest}…"] * bool(digest))


def counted(evaluation: Evaluation) -> str:
    """How many images of which size entered, in words."""
    names = {"results": "results", "ground_truth": "ground truths", "real": "real images"}
    parts = []
    for key, facts in evaluation.images.items():
        sizes = ", ".join(facts.sizes) if len(facts.sizes) < 4 else f"{len(facts.sizes)} sizes"
        parts.append(f"{len(facts.size_of):,} {names[key]} ({sizes})")
    return ", ".join(parts)


def table(evaluation: Evaluation, width: int | None = None) -> str:
    """The report for the screen: one line for each column, then what was refused.

    ``width``: of a terminal, beyond which definitions are cut; the page and metrics.json have all.
    """
    lines = [origin(evaluation), f"images: {counted(evaluation)}"]
    rows = aligned([HEADS, *score_rows(evaluation)])
    if width is not None:
        rows = [row if len(row) <= width else row[: width - 1] + "…" for row in rows]
    return "\n".join([*lines, *rows, *remarks(evaluation)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of equal columns; the first and the last are flush left. No empty column."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    rows = [[row[i] for i in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


ABSENT = "–"


def comparison(evaluations: Mapping[str, Evaluation], best: str) -> list[list[str]]:
    """Heads with an arrow to the better end, then a row for each folder, its label first.

    Columns have full names, so protocols never share one. ``best`` is a pattern for the best value.
    """
    values = {label: {s.column: s.value for s in e.scores} for label, e in evaluations.items()}
    upward = {s.column: s.higher_is_better for e in evaluations.values() for s in e.scores}
    known = {c: [row[c] for row in values.values() if c in row] for c in upward}
    wins = {c: (max if upward[c] else min)(known[c]) for c in upward if len(known[c]) > 1}
    rows = [["results", *(f"{c} {'↑' if higher else '↓'}" for c, higher in upward.items())]]
    for label, row in values.items():
        texts = {c: f"{row[c]:.4f}" if c in row else ABSENT for c in upward}
        won = {c for c in wins if row.get(c) == wins[c]}
        marked = (best.format(text) if c in won else text for c, text in texts.items())
        rows.append([label, *marked])
    return rows


def comparison_table(evaluations: Mapping[str, Evaluation]) -> str:
    """The comparison for the screen, a line for each column; best values are starred."""
    return "\n".join(aligned(list(zip(*comparison(evaluations, "* {}"), strict=True))))


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
    }
)


def write_comparison(evaluations: Mapping[str, Evaluation], folder: Path) -> list[Path]:
    """Write comparison.md, .tex (a tabular of booktabs) and .csv into ``folder``; their paths."""
    from pandas import DataFrame, Index

    head, *rows = comparison(evaluations, "**{}**")
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    markdown = "".join(f"| {line} |\n" for line in cells)
    head, *rows = comparison(evaluations, r"\textbf{{{}}}")
    lines = [[cell.translate(_LATEX) for cell in head]]
    lines += [[label.translate(_LATEX), *row] for label, *row in rows]
    first, *others = (" & ".join(line).replace(ABSENT, "--") + r" \\" for line in lines)
    latex = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", first, r"\midrule"]
    latex += [*others, r"\bottomrule", r"\end{tabular}", ""]
    values = {label: {s.column: s.value for s in e.scores} for label, e in evaluations.items()}
    frame = DataFrame(list(values.values()), Index(list(values), name="results"))
    paths = [folder / f"comparison.{extension}" for extension in ("md", "tex", "csv")]
    make_folder(folder)
    write_file(paths[0], markdown.encode("utf-8"))
    write_file(paths[1], "\n".join(latex).encode("utf-8"))
    write_csv(paths[2], frame)
    return paths
