"""Figures: one pure drawing a figure, from one table, as PDF, PNG and the plotted CSV."""

from blockwise.figures.registry import FIGURES as FIGURE_MODULES
from blockwise.figures.registry import table_of
from blockwise.report.captions import category_of, title_of


wildcard_constraints:
    figure="[a-z0-9_]+",


rule plot_figure:
    input:
        lambda wildcards: f"{RESULTS}/tables/{table_of(wildcards.figure)}.csv",
    output:
        f"{FIGURES}/{{figure}}.pdf",
        report(
            f"{FIGURES}/{{figure}}.png",
            caption="../report/figure.rst",
            category=lambda wildcards: category_of(wildcards.figure),
            labels=lambda wildcards: {
                "figure": title_of(wildcards.figure),
                "form": "picture",
            },
        ),
        report(
            f"{FIGURES}/{{figure}}.csv",
            caption="../report/figure.rst",
            category=lambda wildcards: category_of(wildcards.figure),
            labels=lambda wildcards: {
                "figure": title_of(wildcards.figure),
                "form": "plotted values",
            },
        ),
    localrule: True
    params:
        caption=lambda wildcards: pipeline.figure_caption(wildcards.figure),
        key=lambda wildcards: stage_code_key(
            ["blockwise.figures.write", FIGURE_MODULES[wildcards.figure]]
        ),
        tables=f"{RESULTS}/tables",
        folder=FIGURES,
    shell:
        "exec {PYTHON} -m blockwise.figures.write --figure {wildcards.figure}"
        " --tables {params.tables} --output-dir {params.folder}"
