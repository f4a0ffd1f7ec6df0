"""Analysis: records -> tidy tables, and the manifest of everything a run made."""

TABLES = [
    "compaction_cells",
    "compaction_events",
    "compaction_requests",
    "compaction_end_to_end",
    "engine_cards",
    "data_dictionary",
]


rule tabulate_compaction:
    input:
        batches=[
            f"{RESULTS}/runs/compaction/{backbone}/{dataset}.json"
            for backbone, dataset in pipeline.batches()
        ],
    output:
        [f"{RESULTS}/tables/{table}.csv" for table in TABLES],
        f"{RESULTS}/tables/PROVENANCE.json",
    params:
        key=stage_code_key(["blockwise.tables.write"]),
        store=f"{RESULTS}/cells",
        folder=f"{RESULTS}/tables",
    shell:
        "exec {PYTHON} -m blockwise.tables.write --batches {input.batches}"
        " --store {params.store} --output-dir {params.folder}"


rule write_manifest:
    input:
        rules.tabulate_compaction.output,
        rules.tabulate_compaction.input.batches,
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
