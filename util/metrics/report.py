"""What an evaluation leaves behind: a table, metrics.json and metrics.csv."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from dominate import tags

from util.errors import UserError
from util.files import make_folder, write_file
from util.metrics.folder import describe_generation
from util.metrics.measure import Evaluation, Score, Settings
from util.names import PAGE_IMAGES
from util.show.html import clean_text, new_page, picture, write_page
from util.tables.manifest import folder_record

SHOWN = 8


def ranked_pairs(score: Score, shown: int = SHOWN) -> dict[str, list[int]]:
    """Indices of the best, median and worst pairs of a per-image score, best first in each."""
    values = np.nan_to_num(score.per_image, nan=-np.inf if score.higher_is_better else np.inf)
    order = np.argsort(-values if score.higher_is_better else values, kind="stable")
    shown = min(shown, len(order))
    middle = (len(order) - shown) // 2
    return {
        "Best pairs": order[:shown].tolist(),
        "Median pairs": order[middle : middle + shown].tolist(),
        "Worst pairs": order[len(order) - shown :].tolist(),
    }


def ranking_score(evaluation: Evaluation, rank_by: str | None) -> Score | None:
    """The score that orders the pairs: ``rank_by`` (with or without protocol), or the first."""
    candidates = [score for score in evaluation.scores if score.per_image is not None]
    if rank_by is not None:
        candidates = [s for s in candidates if rank_by in (s.column, s.column.split(".", 1)[1])]
    return candidates[0] if candidates else None


def write_evaluation_page(
    evaluation: Evaluation, output: Path, rank_by: str | None = None, title: str = "Evaluation"
) -> Path:
    """Write index.html into ``output``; the images shown are copied beside it."""
    page = new_page(title)
    page.add(tags.h1(clean_text(title)))
    page.add(tags.p(clean_text(f"{len(evaluation.pairs)} pairs of {evaluation.results}")))
    page.add(_table(evaluation))
    for text in (*evaluation.notes, *_refusals(evaluation.refused)):
        page.add(tags.p(clean_text(text)))
    score = ranking_score(evaluation, rank_by)
    for heading, indices in ({} if score is None else ranked_pairs(score)).items():
        page.add(tags.h2(f"{heading} by {score.column}"))
        cards = tags.div(cls="cards")
        for i in indices:
            cards.add(_card(evaluation, score, i, output))
        page.add(cards)
    write_page(output / "index.html", page)
    return output / "index.html"


def _refusals(refused: Mapping[str, str]) -> list[str]:
    return [f"{name}: not computed: {reason}" for name, reason in refused.items()]


def _table(evaluation: Evaluation) -> tags.div:
    table = tags.table(cellpadding="5")
    heads = ("column", "value", "± standard error", "images", "definition")
    table.add(tags.thead(tags.tr([tags.th(head, align="left") for head in heads])))
    body = table.add(tags.tbody())
    for score in evaluation.scores:
        error = "" if score.standard_error is None else f"{score.standard_error:.2g}"
        cells = (score.column, f"{score.value:.4f}", error, score.count, score.definition)
        body.add(tags.tr([tags.td(clean_text(cell)) for cell in cells]))
    return tags.div(table, style="overflow-x: auto")


def _card(evaluation: Evaluation, score: Score, index: int, output: Path) -> tags.article:
    pair = evaluation.pairs[index]
    make_folder(output / PAGE_IMAGES)
    names = {}
    for kind, path in (("gt", pair.gt), ("result", pair.result)):
        names[kind] = f"{PAGE_IMAGES}/{index:06d}_{kind}{path.suffix.lower()}"
        shutil.copyfile(path, output / names[kind])
    pictures = tags.div(
        picture(names["gt"], "ground truth", f"ground truth {pair.target}"),
        picture(names["result"], "generated", f"generated {pair.name}"),
        cls="pictures",
    )
    heading = tags.h3(clean_text(f"{score.per_image[index]:.4f} · {pair.name}"))
    return tags.article(heading, pictures, cls="card")


ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """``rows``: label of a folder -> column -> score; ``columns``: name -> higher is better."""

    rows: Mapping[str, Mapping[str, Score]]
    columns: Mapping[str, bool]

    def best(self, column: str) -> float | None:
        """Best value of a column; None when there is nothing to compare."""
        values = [row[column].value for row in self.rows.values() if column in row]
        values = [value for value in values if value == value]
        if len(values) < 2:
            return None
        return max(values) if self.columns[column] else min(values)


def compare(evaluations: Mapping[str, Evaluation]) -> Table:
    """One row for each evaluation; columns have full names, so protocols never share one."""
    rows = {
        label: {score.column: score for score in evaluation.scores}
        for label, evaluation in evaluations.items()
    }
    columns = {
        score.column: score.higher_is_better for row in rows.values() for score in row.values()
    }
    return Table(rows, columns)


def _cells(table: Table, bold: str) -> list[list[str]]:
    """Rows of text; ``bold`` is a pattern such as ``**{}**`` for the best value of a column."""
    lines = []
    for label, row in table.rows.items():
        cells = [label]
        for column in table.columns:
            if column not in row:
                cells.append(ABSENT)
                continue
            text = f"{row[column].value:.4f}"
            is_best = row[column].value == table.best(column)
            cells.append(bold.format(text) if is_best else text)
        lines.append(cells)
    return lines


def markdown(table: Table) -> str:
    """The table in Markdown, best values bold."""
    arrows = [f"{name} {'↑' if higher else '↓'}" for name, higher in table.columns.items()]
    head = ["results", *arrows]
    lines = [head, ["---", *("---:" for _ in arrows)], *_cells(table, "**{}**")]
    return (
        "\n".join("| " + " | ".join(_escape_pipe(c) for c in line) + " |" for line in lines) + "\n"
    )


def _escape_pipe(text: str) -> str:
    return text.replace("|", "\\|")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: Table) -> str:
    """The table as a LaTeX tabular (package booktabs), best values bold."""
    arrows = [
        f"{_latex_text(name)} ${chr(92)}{'uparrow' if higher else 'downarrow'}$"
        for name, higher in table.columns.items()
    ]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(arrows)}}}", r"\toprule"]
    lines += [" & ".join(["results", *arrows]) + r" \\", r"\midrule"]
    for label, *cells in _cells(table, r"\textbf{{{}}}"):
        cells = [cell.replace(ABSENT, "--") for cell in cells]
        lines.append(" & ".join([_latex_text(label), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """The table as CSV with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["results", *table.columns])
    for label, row in table.rows.items():
        writer.writerow([label, *(repr(row[c].value) if c in row else "" for c in table.columns)])
    return text.getvalue()


def write_comparison(table: Table, folder: Path) -> list[Path]:
    """Write comparison.md, .tex and .csv into ``folder``; returns their paths."""
    make_folder(folder)
    contents = {"md": markdown(table), "tex": latex(table), "csv": comma_separated(table)}
    paths = []
    for extension, content in contents.items():
        paths.append(folder / f"comparison.{extension}")
        write_file(paths[-1], content.encode("utf-8"))
    return paths


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
