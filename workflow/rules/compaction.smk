"""Compaction: agent sessions under sequential and parallel compaction, scored as they end."""


# One job a batch: it reserves the machine, serves the backbone and plays the missing cells.
rule run_compaction:
    input:
        sessions=rules.build_sessions.output[0],
        model=rules.prepare_backbone.output[0],
    output:
        f"{RESULTS}/runs/compaction/{{backbone}}/{{dataset}}.json",
    threads: workflow.cores
    resources:
        gpu=lambda wildcards: pipeline.num_gpus(wildcards.backbone),
    params:
        key=lambda wildcards: pipeline.compaction_key(
            wildcards.backbone, wildcards.dataset
        ),
        config=pipeline.config_file,
        prompts="config/prompts",
        store=f"{RESULTS}/cells",
        server_log="logs/servers/{backbone}/{dataset}.log",
    shell:
        "exec {PYTHON} -m blockwise.compaction.run --config {params.config}"
        " --backbone {wildcards.backbone} --sessions {input.sessions} --model {input.model}"
        " --prompts {params.prompts} --store {params.store} --server-log {params.server_log}"
        " --output {output}"
