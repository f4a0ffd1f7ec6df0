"""Figures: one pure drawing a figure, from one table, as PDF, PNG and the plotted CSV."""

from blockwise.figures.registry import FIGURES as FIGURE_MODULES


rule plot_figure:
    input:
        f"{RESULTS}/tables/{{figure}}.csv",
    output:
        f"{FIGURES}/{{figure}}.pdf",
        f"{FIGURES}/{{figure}}.png",
        f"{FIGURES}/{{figure}}.csv",
    params:
        key=lambda wildcards: stage_code_key(
            ["blockwise.figures.write", FIGURE_MODULES[wildcards.figure]]
        ),
        tables=f"{RESULTS}/tables",
        folder=FIGURES,
    shell:
        "exec {PYTHON} -m blockwise.figures.write --figure {wildcards.figure}"
        " --tables {params.tables} --output-dir {params.folder}"
