"""What an evaluation leaves behind: a table for the screen, metrics.json, metrics.csv, comparisons.

The page index.html is written by :mod:`util.metrics.page`.
"""

from __future__ import annotations

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
from util.metrics.folder import describe_generation
from util.metrics.measure import Evaluation, Score, Settings
from util.tables.manifest import folder_record

if TYPE_CHECKING:
    from pandas import DataFrame

LIBRARIES = (
    *("numpy", "scipy", "scikit-image", "opencv-python-headless", "pillow", "torch"),
    *("torchvision", "torchmetrics", "lpips", "pytorch-fid", "torch-fidelity"),
)


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


def write_report(evaluation: Evaluation, settings: Settings, output: str | Path) -> Path:
    """Write metrics.json and metrics.csv (one row per image) into the folder ``output``."""
    output = make_folder(output)
    text = json.dumps(report_dict(evaluation, settings), indent=1, ensure_ascii=False)
    write_file(output / "metrics.json", text.encode("utf-8", "surrogateescape"))
    write_csv(output / "metrics.csv", per_image(evaluation))
    return output


def write_csv(path: Path, frame: DataFrame) -> None:
    """Write a table as CSV with all digits; what a spreadsheet would compute is quoted as text."""
    frame = frame.rename(index=_harmless).map(_harmless)
    text = frame.to_csv(lineterminator="\n")
    write_file(path, text.encode("utf-8", "surrogateescape"))


def _harmless(cell: object) -> object:
    dangerous = isinstance(cell, str) and cell.startswith(("=", "+", "@", "\t", "\r"))
    return f"'{cell}" if dangerous else cell


def per_image(evaluation: Evaluation) -> DataFrame:
    """A row for each result (index ``name``): its target and every score of two images."""
    from pandas import DataFrame, Index  # slow to import

    scores = [score for score in evaluation.scores if score.per_image is not None]
    columns = {"target": [pair.target for pair in evaluation.pairs]}
    columns |= {score.column: score.per_image for score in scores}
    return DataFrame(columns, Index([pair.name for pair in evaluation.pairs], name="name"))


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
        "published": score.published,
        "higher_is_better": score.higher_is_better,
        "definition": score.definition,
        **score.details,
    }


def number(value: float | None) -> float | str | None:
    """A float as JSON has it: NaN becomes null, infinity the string "inf"."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library that a number can depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
    lines = []
    for protocol in evaluation.protocols:
        known = [
            f"{score.column} {score.published:g}"
            for score in evaluation.of(protocol)
            if score.published is not None
        ]
        if known:
            lines.append(f"published by {protocol.published_by}: {', '.join(known)}")
    lines += [f"note: {note}" for note in evaluation.notes]
    lines += [
        f"note: {s.column}: {s.details['note']}" for s in evaluation.scores if "note" in s.details
    ]
    lines += [f"left out, {kind}: {len(names)}" for kind, names in evaluation.left_out.items()]
    return lines + [f"{name}: not computed: {why}" for name, why in evaluation.refused.items()]


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
    lines = [describe_generation(evaluation.generation), f"images: {counted(evaluation)}"]
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


def compare(evaluations: Mapping[str, Evaluation]) -> DataFrame:
    """A row for each folder; columns have full names, so protocols never share one.

    ``attrs["higher_is_better"]`` tells by column where more is better.
    """
    from pandas import DataFrame

    rows = {label: {s.column: s.value for s in e.scores} for label, e in evaluations.items()}
    upward = {s.column: s.higher_is_better for e in evaluations.values() for s in e.scores}
    frame = DataFrame.from_dict(rows, orient="index", columns=None if upward else [])
    frame = frame.reindex(columns=list(upward)).rename_axis("results")
    frame.attrs["higher_is_better"] = upward
    return frame


def cells(comparison: DataFrame, bold: str) -> list[list[str]]:
    """Rows of text, label first; ``bold`` is a pattern such as ``**{}**`` for the best value."""
    best = {}
    for column, upward in comparison.attrs["higher_is_better"].items():
        if comparison[column].notna().sum() > 1:
            best[column] = comparison[column].max() if upward else comparison[column].min()
    lines = []
    for label, row in comparison.iterrows():
        texts = [ABSENT if math.isnan(value) else f"{value:.4f}" for value in row]
        marked = [
            bold.format(text) if row[column] == best.get(column) else text
            for text, column in zip(texts, comparison.columns, strict=True)
        ]
        lines.append([str(label), *marked])
    return lines


def markdown(comparison: DataFrame) -> str:
    """The comparison in Markdown, best values bold."""
    upward = comparison.attrs["higher_is_better"].items()
    head = ["results", *(f"{name} {'↑' if higher else '↓'}" for name, higher in upward)]
    lines = [head, ["---", *("---:" for _ in upward)], *cells(comparison, "**{}**")]
    rows = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {row} |\n" for row in rows)


def comparison_table(comparison: DataFrame, width: int | None = None) -> str:
    """The comparison for the screen: as Markdown, or where a terminal of ``width`` is too narrow
    for it, with a line for each column; best values are starred there."""
    text = markdown(comparison)
    if width is None or max(map(len, text.splitlines())) <= width:
        return text
    rows = [["results", *comparison.columns], *cells(comparison, "* {}")]
    return "\n".join(aligned(list(zip(*rows, strict=True)))) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def latex(comparison: DataFrame) -> str:
    """The comparison as a LaTeX tabular (package booktabs), best values bold."""
    arrows = {True: r"$\uparrow$", False: r"$\downarrow$"}
    upward = comparison.attrs["higher_is_better"].items()
    heads = [f"{name.translate(_LATEX)} {arrows[higher]}" for name, higher in upward]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    lines += [" & ".join(["results", *heads]) + r" \\", r"\midrule"]
    for label, *row in cells(comparison, r"\textbf{{{}}}"):
        row = [cell.replace(ABSENT, "--") for cell in row]
        lines.append(" & ".join([label.translate(_LATEX), *row]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_comparison(comparison: DataFrame, folder: Path) -> list[Path]:
    """Write comparison.md, .tex and .csv into ``folder``; returns their paths."""
    make_folder(folder)
    write_file(folder / "comparison.md", markdown(comparison).encode("utf-8"))
    write_file(folder / "comparison.tex", latex(comparison).encode("utf-8"))
    write_csv(folder / "comparison.csv", comparison)
    return [folder / f"comparison.{extension}" for extension in ("md", "tex", "csv")]
