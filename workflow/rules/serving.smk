"""Backbones: fetch, make or check a model's files before a server needs them.

The server itself is not a rule: each batch job starts, probes and stops its own
(workflow/docs/decisions/0004-one-job-one-server.md).
"""


wildcard_constraints:
    backbone="[a-z0-9._-]+",


# Published models: of the hub, or GGUF files. A job of its own without a GPU, so that none waits
# for a download; no local rule, because hundreds of gigabytes are no work for a cluster's head node.
# A retry goes on.
rule fetch_model:
    output:
        f"{RESULTS}/runs/models/{{backbone}}.json",
    log:
        job="logs/jobs/fetch_model/{backbone}.log",
    benchmark:
        "logs/benchmarks/fetch_model/{backbone}.tsv"
    retries: 2
    resources:
        gpu=0,
    params:
        key=lambda wildcards: pipeline.fetched_model_key(wildcards.backbone),
        config=pipeline.config_file,
    shell:
        "logged {log.job} {PYTHON} -m blockwise.models.fetch_model --config {params.config}"
        " --backbone {wildcards.backbone} --output {output}"


rule prepare_backbone:
    input:
        fetched=lambda wildcards: pipeline.fetched_model_files(wildcards.backbone),
    output:
        f"{RESULTS}/runs/backbones/{{backbone}}.json",
    log:
        job="logs/jobs/prepare_backbone/{backbone}.log",
    benchmark:
        "logs/benchmarks/prepare_backbone/{backbone}.tsv"
    params:
        key=lambda wildcards: pipeline.backbone_key(wildcards.backbone),
        config=pipeline.config_file,
        folder=f"{RESULTS}/runs/backbones",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.models.prepare --config {params.config}"
        " --backbone {wildcards.backbone} --folder {params.folder}/{wildcards.backbone}"
        " --fetched {input.fetched} --output {output}"
