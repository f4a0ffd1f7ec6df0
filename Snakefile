"""blockwise: from datasets and backbones to every table and figure.

snakemake --cores all                                                  the default profile
snakemake --cores all mxfp4          one of its studies alone: compaction or mxfp4
snakemake --cores all crate          everything, as a folder to deposit
snakemake --cores all --configfile config/config.yaml config/paper.yaml   another one
snakemake --cores all train_pocket   the shipped pocket backbones, from nothing; takes hours
"""

from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from blockwise.config.split import PART_PATTERN
from blockwise.errors import BlockwiseError
from blockwise.run.pipeline import Pipeline, stage_code_key
from blockwise.tables.registry import Family

min_version("9.27")

try:
    pipeline = Pipeline(
        [Path(file) for file in workflow.config_settings.configfiles],
        workflow.config_settings.config,
    )
    if (
        workflow.is_main_process
    ):  # a dry run too; jobs parse this file again and need not wait
        from blockwise.estimate.plans import check_fits

        check_fits(pipeline)
except BlockwiseError as error:
    raise WorkflowError(str(error))

RESULTS = pipeline.results
FIGURES = pipeline.figures
FAMILIES = pipeline.families()
PYTHON = sys.executable
# Timed jobs reserve it. On a cluster nobody says how many cores it has: the profile asks for a
# node of their own.
WHOLE_MACHINE = workflow.resource_settings.cores or 1


report: "workflow/report/workflow.rst"


wildcard_constraints:
    backbone="[a-z0-9._-]+",
    dataset="[a-z0-9._-]+",
    figure="[a-z0-9_]+",
    part=PART_PATTERN,
    experiment="[a-z0-9._-]+",
    run="all|[0-9]+(-[0-9]+)?",


# Seconds of reading and drawing each: no work for a queue.
localrules:
    tabulate_compaction,
    tabulate_mxfp4,
    judge_claims,
    write_data_dictionary,
    plot_figure,
    build_report_pages,
    write_manifest,


include: "workflow/rules/data.smk"
include: "workflow/rules/serving.smk"
include: "workflow/rules/compaction.smk"
include: "workflow/rules/mxfp4.smk"
include: "workflow/rules/pocket.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/analysis.smk"


# Runs before the first job, and not in a dry run.
onstart:
    try:
        pipeline.begin_run()
    except BlockwiseError as error:
        raise WorkflowError(str(error))


rule all:
    default_target: True
    input:
        f"{RESULTS}/MANIFEST.json",
