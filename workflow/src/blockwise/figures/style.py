"""One look for every figure: sizes, fonts, and what each category looks like.

A category is told apart three times, by colour, marker and line, so that a figure survives
a grey printer and a colour-blind reader. The settings start from Matplotlib's own defaults,
not from the reader's matplotlibrc, and nothing depends on the time or the machine: the same
table gives the same bytes.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

COLUMN_WIDTH_IN = 3.5  # one column of a two-column page
TEXT_WIDTH_IN = 7.1  # both columns with the gap between them
FONT_SIZE_PT = 7.0  # smallest size that journals accept in print
PNG_DPI = 300
CHARACTER_WIDTH_IN = 0.56 * FONT_SIZE_PT / 72  # mean advance of DejaVu Sans, at 72 points an inch
PIXEL_ROUNDING = 1.04  # a glyph starts at a whole pixel: text is wider than in the PDF
LINE_HEIGHT_IN = 1.35 * FONT_SIZE_PT / 72  # line spacing of wrapped text, with some air

FONT = "DejaVu Sans"  # shipped with Matplotlib: the same everywhere

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "font.size": FONT_SIZE_PT,
    "axes.titlesize": FONT_SIZE_PT,
    "axes.labelsize": FONT_SIZE_PT,
    "xtick.labelsize": FONT_SIZE_PT,
    "ytick.labelsize": FONT_SIZE_PT,
    "legend.fontsize": FONT_SIZE_PT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "text.parse_math": False,  # a name may hold a dollar sign
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "blockwise",  # ids inside vector files do not change from run to run
}

Linestyle = Literal["-", "--", "-.", ":"] | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """How one category is drawn."""

    color: str
    marker: str
    linestyle: Linestyle


# Colours of Okabe and Ito, distinct under the common colour blindnesses; in grey they run
# from dark to light in the order of this list, and marker and line tell the near ones apart.
LOOKS = (
    Look("#000000", "o", "--"),
    Look("#0072B2", "s", "-"),
    Look("#D55E00", "^", "-."),
    Look("#009E73", "D", ":"),
    Look("#CC79A7", "v", (0, (5, 1, 1, 1, 1, 1))),
    Look("#E69F00", "P", (0, (3, 1))),
    Look("#56B4E9", "X", (0, (1, 2))),
    Look("#7F7F7F", "*", (0, (6, 2, 1, 2))),
)
ARMS = (
    "sequential",
    "target_block",
    "suffix_target",
    "independent",
    "full_marked",
    "suffix_full",
)

STRATEGIES = ("sequential", "parallel", "rolling", "hierarchical", "mask", "truncate")
"""Strategies, which never stand beside layouts."""


def look_of_arm(arm: str) -> Look:
    """The look of an arm, the same in every figure.

    A layout or strategy without an entry takes a spare look by its name: adding one needs no edit
    here, and an entry once two of them would look alike.
    """
    for arms in (ARMS, STRATEGIES):
        if arm in arms:
            return LOOKS[arms.index(arm)]
    spare = LOOKS[len(ARMS) :]
    return spare[sum(arm.encode()) % len(spare)]


def look_of_rank(rank: int) -> Look:
    """The look of a category of a figure that lists its own; alike from the ninth on."""
    return LOOKS[rank % len(LOOKS)]


MARKER_SIZES_PT = (2.8, 6.5)  # smallest and largest, where the size of a mark tells sizes apart

# A level is what marks are held against: a line without marker, in a grey of its own.
LEVELS = {
    "closed book": Look("#000000", "", ":"),
    "full history": Look("#555555", "", (0, (7, 2))),
    "asked for": Look("#000000", "", "-"),
    "in proportion": Look("#555555", "", (0, (2, 2))),
}
REPORTED_COLOR = "#BBBBBB"  # of what others report: a shade behind the marks


def look_of_level(level: str) -> Look:
    """The look of a level, the same in every figure."""
    return LEVELS[level]


def marker_size_pt(rank: int, num_ranks: int) -> float:
    """Size of the marks of one of several ordered categories, from small to large."""
    if num_ranks == 1:
        return float(SETTINGS["lines.markersize"])
    smallest, largest = MARKER_SIZES_PT
    return smallest + (largest - smallest) * rank / (num_ranks - 1)


@contextmanager
def drawing() -> Iterator[None]:
    """The settings under which figures are drawn and saved."""
    settings: dict[Any, Any] = dict(mpl.rcParamsDefault)
    del settings["backend"]  # none is switched: figures are saved by name of their format
    settings.update(SETTINGS)
    with mpl.rc_context(settings):
        yield


def wrapped(text: str, width_in: float) -> str:
    """Break a text into lines that fit a width: at spaces, inside names at - _ and dots."""
    num_characters = max(8, int(width_in / CHARACTER_WIDTH_IN))
    pieces = re.findall(r"[^-_. ]*[-_. ]+|[^-_. ]+", text)
    lines = [""]
    for piece in pieces:
        if len((lines[-1] + piece).rstrip()) > num_characters:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > num_characters:  # a piece longer than a line
            lines[-1], rest = lines[-1][:num_characters], lines[-1][num_characters:]
            lines.append(rest)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def text_width_in(text: str, *, is_bold: bool = False) -> float:
    """Width of one line of text, from the font itself, with what a coarse screen adds."""
    weight = "bold" if is_bold else "normal"
    font = FontProperties(family=FONT, size=FONT_SIZE_PT, weight=weight)
    width_pt, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return PIXEL_ROUNDING * float(width_pt) / 72


def wrapped_arm(arm: str, width_in: float) -> str:
    """Break the name of a recipe into lines that fit a width, after + and commas."""
    lines = [""]
    for piece in re.findall(r"[^+,]*[+,] ?|[^+,]+", arm):
        if lines[-1] and text_width_in((lines[-1] + piece).rstrip()) > width_in:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as PDF, without the time of writing."""
    return _saved(figure, format="pdf", metadata={"CreationDate": None})


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG, without the name of the software."""
    return _saved(figure, format="png", dpi=PNG_DPI, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with drawing():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, **options)
    return buffer.getvalue()
