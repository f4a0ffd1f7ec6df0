"""Backbones: make, check or fetch a model's files before a server needs them.

The server itself is not a rule: each batch job starts, probes and stops its own
(workflow/docs/decisions/0004-one-job-one-server.md).
"""


rule prepare_backbone:
    output:
        f"{RESULTS}/runs/backbones/{{backbone}}.json",
    params:
        key=lambda wildcards: pipeline.backbone_key(wildcards.backbone),
        config=pipeline.config_file,
        folder=f"{RESULTS}/runs/backbones",
    shell:
        "exec {PYTHON} -m blockwise.serving.models --config {params.config}"
        " --backbone {wildcards.backbone} --folder {params.folder}/{wildcards.backbone}"
        " --output {output}"
