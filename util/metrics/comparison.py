"""Several evaluations in one table: Markdown, LaTeX and CSV, a column for each measured column."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from util.files import make_folder, write_file
from util.metrics.measurement import Evaluation, Score

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
