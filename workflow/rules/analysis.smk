"""Analysis: records -> tidy tables, and the manifest of everything a run made."""

from blockwise.tables.registry import TABLES as TABLE_MODULES

BATCHES = [f"{backbone}/{dataset}" for backbone, dataset in pipeline.batches()]


rule tabulate_compaction:
    input:
        batches=[f"{RESULTS}/runs/compaction/{batch}.json" for batch in BATCHES],
        similarities=[f"{RESULTS}/runs/similarity/{batch}.json" for batch in BATCHES],
        judgements=[f"{RESULTS}/runs/judge/{batch}.json" for batch in BATCHES],
    output:
        [
            f"{RESULTS}/tables/{table}.csv"
            for table in (*TABLE_MODULES, "data_dictionary")
        ],
        f"{RESULTS}/tables/PROVENANCE.json",
    params:
        key=stage_code_key(["blockwise.tables.write", *TABLE_MODULES.values()]),
        store=f"{RESULTS}/cells",
        folder=f"{RESULTS}/tables",
    shell:
        "exec {PYTHON} -m blockwise.tables.write --batches {input.batches}"
        " --similarities {input.similarities} --judgements {input.judgements}"
        " --store {params.store} --output-dir {params.folder}"


rule write_manifest:
    input:
        rules.tabulate_compaction.output,
        rules.tabulate_compaction.input,
        [
            f"{FIGURES}/{figure}.{suffix}"
            for figure in FIGURE_MODULES
            for suffix in ("pdf", "png", "csv")
        ],
    output:
        f"{RESULTS}/MANIFEST.json",
    params:
        key=stage_code_key(["blockwise.manifest"]),
    shell:
        "exec {PYTHON} -m blockwise.manifest write {output} {input}"
