"""blockwise: from datasets and backbones to every table and figure.

    snakemake --cores all [TARGET] [--configfile config/config.yaml config/paper.yaml]

A target is a study (`compaction`, `mxfp4`), `crate`, or `train_pocket` (takes half an hour).
"""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from blockwise.errors import BlockwiseError
from blockwise.run.pipeline import Pipeline, stage_code_key
from blockwise.run.stop_jobs import stop_jobs_on_sigterm

min_version("9.27")

try:
    settings = workflow.config_settings
    pipeline = Pipeline(list(settings.configfiles), settings.config)
    if workflow.is_main_process:  # jobs parse this file again and need not wait for it
        from blockwise.estimate.plans import check_fits

        check_fits(pipeline)
except BlockwiseError as error:
    raise WorkflowError(str(error))

RESULTS, FIGURES, PYTHON = pipeline.results, pipeline.figures, sys.executable
# Timed jobs reserve it; on a cluster, which knows no cores, its profile asks for a node instead.
WHOLE_MACHINE = workflow.resource_settings.cores or 1
# Before a command whose times count: trainings at idle priority, of any folder, stand aside.
TIMED = f"{PYTHON} -m blockwise.timed"
# `logged FILE COMMAND ...` in a job: its words go to the terminal and, beside, into the file.
shell.prefix(
    'logged() {{ exec "${{@:2}}" 2> >(trap "" INT TERM; exec tee -a "$1" >&2); }}; '
)


report: "workflow/report/workflow.rst"


include: "workflow/rules/data.smk"
include: "workflow/rules/serving.smk"
include: "workflow/rules/compaction.smk"
include: "workflow/rules/mxfp4.smk"
include: "workflow/rules/pocket.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/analysis.smk"


# Runs before the first job, and not in a dry run.
onstart:
    stop_jobs_on_sigterm()
    try:
        pipeline.begin_run()
    except BlockwiseError as error:
        raise WorkflowError(str(error))


rule all:
    default_target: True
    input:
        f"{RESULTS}/MANIFEST.json",
