"""Analysis: records -> tidy tables, one rule a study, the claims ledger, and the manifest of a run.

Local rules: seconds of reading and drawing each, no work for a queue.
"""

from blockwise.config.mxfp4_studies import Study as MXFP4Study
from blockwise.run.pipeline import CLAIMS_FILE
from blockwise.tables.registry import Family, code_of, tables_of

FAMILIES = pipeline.families()
BATCHES = [f"{backbone}/{dataset}" for backbone, dataset in pipeline.batches()]


rule tabulate_compaction:
    input:
        batches=[f"{RESULTS}/runs/compaction/{batch}.json" for batch in BATCHES],
        similarities=[f"{RESULTS}/runs/similarity/{batch}.json" for batch in BATCHES],
        judgements=[f"{RESULTS}/runs/judge/{batch}.json" for batch in BATCHES],
    output:
        [f"{RESULTS}/tables/{table}.csv" for table in tables_of(Family.COMPACTION)],
        f"{RESULTS}/tables/PROVENANCE.json",
    localrule: True
    params:
        key=stage_code_key(code_of(Family.COMPACTION)),
        store=f"{RESULTS}/cells",
        folder=f"{RESULTS}/tables",
    shell:
        "exec {PYTHON} -m blockwise.tables.write compaction --batches {input.batches}"
        " --similarities {input.similarities} --judgements {input.judgements}"
        " --store {params.store} --output-dir {params.folder}"


rule tabulate_mxfp4:
    input:
        training=[
            f"{MXFP4_RUNS}/training/{experiment}/{run}.json"
            for experiment, run in TRAINING.runs()
        ],
        diagnostics=TRAINING.measurements(
            f"{MXFP4_RUNS}/diagnostics", MXFP4Study.DIAGNOSTICS, MXFP4Study.SCALE_RULES
        ),
        layer_errors=TRAINING.layer_errors(f"{MXFP4_RUNS}/layer_errors"),
        descent=TRAINING.descents(f"{MXFP4_RUNS}/descent"),
        outliers=TRAINING.measurements(f"{MXFP4_RUNS}/outliers", MXFP4Study.OUTLIERS),
        speed=TRAINING.measurements(f"{MXFP4_RUNS}/speed", MXFP4Study.SPEED),
    output:
        [f"{RESULTS}/tables/{table}.csv" for table in tables_of(Family.MXFP4)],
        f"{RESULTS}/tables/PROVENANCE_mxfp4.json",
    localrule: True
    params:
        key=TRAINING.tables_key(code_of(Family.MXFP4)),
        config=pipeline.config_file,
        store=f"{RESULTS}/cells",
        folder=f"{RESULTS}/tables",
    shell:
        "exec {PYTHON} -m blockwise.tables.write mxfp4 --config {params.config}"
        " --training {input.training} --diagnostics {input.diagnostics}"
        " --layer-errors {input.layer_errors} --descent {input.descent}"
        " --outliers {input.outliers} --speed {input.speed}"
        " --store {params.store} --output-dir {params.folder}"


rule judge_claims:
    input:
        rules.tabulate_compaction.output,
        rules.tabulate_mxfp4.output if Family.MXFP4 in FAMILIES else [],
    output:
        f"{RESULTS}/tables/claims.csv",
        f"{RESULTS}/tables/claim_points.csv",
    localrule: True
    params:
        key=pipeline.claims_key(),
        claims=CLAIMS_FILE,
        tables=f"{RESULTS}/tables",
        families=FAMILIES,
    shell:
        "exec {PYTHON} -m blockwise.claims.ledger --claims {params.claims}"
        " --tables {params.tables} --families {params.families}"


rule write_data_dictionary:
    output:
        f"{RESULTS}/tables/data_dictionary.csv",
    localrule: True
    params:
        key=stage_code_key(
            [
                "blockwise.report.data_dictionary",
                "blockwise.claims.ledger",
                *tables_of(*FAMILIES).values(),
            ]
        ),
        families=FAMILIES,
    shell:
        "exec {PYTHON} -m blockwise.report.data_dictionary --families {params.families}"
        " --output {output}"


rule build_report_pages:
    input:
        rules.judge_claims.input,
        rules.judge_claims.output,
        rules.write_data_dictionary.output,
    output:
        report(
            f"{RESULTS}/report/claims.html",
            caption="../report/claims.rst",
            category="1 Claims",
            labels={"page": "Claims and the points behind them"},
        ),
        report(
            f"{RESULTS}/report/tables.html",
            caption="../report/tables.rst",
            category="4 Tables and provenance",
            labels={"page": "Every table"},
        ),
    localrule: True
    params:
        key=stage_code_key(["blockwise.report.pages"]),
        tables=f"{RESULTS}/tables",
        folder=f"{RESULTS}/report",
        families=FAMILIES,
    shell:
        "exec {PYTHON} -m blockwise.report.pages --tables {params.tables}"
        " --families {params.families} --output-dir {params.folder}"


# Every file of every study of the profile; `compaction` and `mxfp4` make one study alone.
rule write_manifest:
    input:
        [rules.tabulate_compaction.output, rules.tabulate_compaction.input],
        [rules.tabulate_mxfp4.output, rules.tabulate_mxfp4.input]
        if Family.MXFP4 in FAMILIES
        else [],
        rules.judge_claims.output,
        rules.write_data_dictionary.output,
        rules.build_report_pages.output,
        pipeline.figure_files(*FAMILIES),
    output:
        f"{RESULTS}/MANIFEST.json",
    localrule: True
    params:
        key=pipeline.manifest_key(),
        config=pipeline.config_file,
    shell:
        "exec {PYTHON} -m blockwise.run.manifest {output} {input} {params.config}"


# Declares no output, which Snakemake would delete before it writes anew: a crate that cannot be
# written leaves the one before it. With report.html where there is one; `make crate` writes both.
rule crate:
    input:
        rules.write_manifest.output,
    localrule: True
    params:
        results=RESULTS,
    shell:
        "exec {PYTHON} -m blockwise.crate.write {params.results}"


rule compaction:
    input:
        rules.tabulate_compaction.output,
        pipeline.figure_files(Family.COMPACTION),


rule mxfp4:
    input:
        rules.tabulate_mxfp4.output,
        pipeline.figure_files(Family.MXFP4),
