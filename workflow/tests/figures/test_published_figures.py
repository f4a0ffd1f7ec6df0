"""Figures of what is measured on a published model: what they draw and what they say."""

import importlib

import pytest
from drawn import texts_of
from made_up_tables import table_of

import published_records
from blockwise.figures import style
from blockwise.figures.registry import load_figure
from blockwise.tables.inputs import TableInputs
from blockwise.tables.registry import TABLES

NAMES = ("mxfp4_layer_medians", "mxfp4_layer_depths", "mxfp4_layer_ratios", "mxfp4_descent")


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Bytes of a small picture tell as much as those of a large one."""
    monkeypatch.setattr(style, "PNG_DPI", 50)


def built(name, inputs=None):
    """The figure's module and its table."""
    module = load_figure(name)
    table = importlib.import_module(TABLES[module.TABLE]).build(
        inputs or published_records.inputs()
    )
    return module, table


@pytest.mark.parametrize("name", NAMES)
def test_every_plotted_value_is_drawn_and_stands_in_the_table(name):
    module, table = built(name)
    marks, figure = module.plotted(table), module.draw(table)
    drawn = {
        float(value)
        for ax in figure.axes
        for line in ax.lines
        for value in (*line.get_xdata(), *line.get_ydata())
    }
    assert len(marks)
    assert set(marks["value"].dropna()) <= drawn
    numbers = table.select_dtypes("number").astype("float64")
    assert set(marks[["value", "low", "high"]].stack().dropna()) <= set(numbers.stack().dropna())


@pytest.mark.parametrize("name", NAMES)
def test_two_draws_are_the_same_and_say_where_the_weights_are_from(name):
    module, table = built(name)
    figure = module.draw(table)
    assert "a model from a 4-bit file; emulated." in texts_of(figure).replace("\n", " ")
    assert style.png_bytes(figure) == style.png_bytes(module.draw(table))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_table_gives_a_figure_that_says_so(name):
    module = load_figure(name)
    empty = table_of(module.TABLE, [])
    assert texts_of(module.draw(empty)).startswith("no ")
    assert module.plotted(empty).empty


@pytest.mark.parametrize("name", ["mxfp4_layer_medians", "mxfp4_layer_depths"])
def test_wgrad_stands_first_and_what_weights_have_to_do_with_the_file_is_said(name):
    module, table = built(name)
    words = texts_of(module.draw(table)).replace("\n", " ")
    assert words.index("Wgrad") < words.index("Dgrad") < words.index("Fprop")
    assert "Wgrad multiplies no weight." in words


def test_the_mechanism_is_told_in_numbers():
    module, table = built("mxfp4_layer_ratios")
    words = texts_of(module.draw(table)).replace("\n", " ")
    assert "median 1.25, above one in 5 of 6 layers" in words
    assert "rank correlation 1.00" in words
    assert set(module.plotted(table)["gemm"]) == {"W"}


def test_fewer_starts_than_asked_for_are_said():
    study = published_records.settings()
    starts = published_records.descents(study, starts=[0, 3])
    module, table = built("mxfp4_descent", TableInputs(mxfp4=study, descents=starts))
    assert "n = 2" in texts_of(module.draw(table))


def test_a_panel_without_a_mark_has_no_ticks():
    study = published_records.settings()
    entry = study.experiments["errors"].model_copy(update={"arms": ["W"], "ratios": []})
    alone = study.model_copy(update={"experiments": {"errors": entry}})
    errors = [
        part.model_copy(update={"errors": [one for one in part.errors if one.arm == "W"]})
        for part in published_records.layer_errors(study)
    ]
    module, table = built("mxfp4_layer_medians", TableInputs(mxfp4=alone, layer_errors=errors))
    wgrad, dgrad, _ = module.draw(table).axes
    assert len(wgrad.get_xticks())
    assert not len(dgrad.get_xticks()) + len(dgrad.get_xticks(minor=True))
