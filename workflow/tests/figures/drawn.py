"""What a reader sees in a figure."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from blockwise.figures import style


def texts_of(figure):
    """All that a figure says, in one line."""
    return " ".join(" ".join(text.get_text().split()) for text in shown_texts(figure))


def shown_texts(figure):
    """Every text that a reader sees: no hidden panel, no tick label beyond the axis."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (ax.get_visible() and low <= tick.get_loc() <= high):
                    hidden |= {tick.label1, tick.label2}
        if not ax.get_visible():
            hidden |= set(ax.findobj(Text))
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def shown_boxes(figure):
    """Every text with the rectangle that it covers."""
    with style.drawing():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # lays the figure out
    renderer = canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown_texts(figure)]


def assert_labels_are_apart(figure):
    """No text overlaps another or leaves the page."""
    boxes = shown_boxes(figure)
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        apart = (
            box.x1 <= other_box.x0 + 1
            or other_box.x1 <= box.x0 + 1
            or box.y1 <= other_box.y0 + 1
            or other_box.y1 <= box.y0 + 1
        )
        assert apart, (text, other)
    page = figure.bbox
    for text, box in boxes:
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text


def drawn_points(figure):
    """The x and y of every mark, and the y of every line without marks."""
    points, levels = [], set()
    for ax in figure.axes:
        for line in ax.lines:
            if line.get_marker() in ("None", "", "_"):
                levels |= {float(value) for value in line.get_ydata()}
            else:
                points += [(float(x), float(y)) for x, y in line.get_xydata()]
    return points, levels


def tick_labels(ax, which="major"):
    """Labels below an axis."""
    return [label.get_text() for label in ax.get_xticklabels(minor=which == "minor")]
