"""Pocket backbones: trained from nothing, examined on held-out scenes, described.

Not part of a reproduction, which uses the files that the repository ships
(workflow/pocket): `snakemake train_pocket` makes them again.
"""

POCKET_RUNS = f"{RESULTS}/pocket"


rule train_pocket_backbone:
    output:
        f"{POCKET_RUNS}/{{backbone}}/training.json",
    log:
        job="logs/jobs/train_pocket_backbone/{backbone}.log",
    benchmark:
        "logs/benchmarks/train_pocket_backbone/{backbone}.tsv"
    threads: 1
    params:
        key=lambda wildcards: pipeline.pocket_key(wildcards.backbone),
        config=pipeline.config_file,
        prompts="config/prompts",
        checkpoint=f"{RESULTS}/runs/pocket/{{backbone}}.pt",
        folder=f"{POCKET_RUNS}/{{backbone}}",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.pocket.train_backbone --config {params.config}"
        " --backbone {wildcards.backbone} --prompts {params.prompts}"
        " --checkpoint {params.checkpoint} --threads {threads}"
        " --output-dir {params.folder}"


rule examine_pocket_backbone:
    input:
        rules.train_pocket_backbone.output,
    output:
        f"{POCKET_RUNS}/{{backbone}}/skills.json",
    log:
        job="logs/jobs/examine_pocket_backbone/{backbone}.log",
        server="logs/servers/{backbone}/examination.log",
    benchmark:
        "logs/benchmarks/examine_pocket_backbone/{backbone}.tsv"
    threads: WHOLE_MACHINE
    params:
        key=lambda wildcards: pipeline.pocket_key(wildcards.backbone),
        config=pipeline.config_file,
        prompts="config/prompts",
        folder=f"{POCKET_RUNS}/{{backbone}}",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.pocket.examine --config {params.config}"
        " --backbone {wildcards.backbone} --prompts {params.prompts}"
        " --folder {params.folder} --server-log {log.server} --output {output}"


rule describe_pocket_backbone:
    input:
        rules.examine_pocket_backbone.output,
    output:
        f"{POCKET_RUNS}/{{backbone}}/README.md",
    localrule: True
    params:
        folder=f"{POCKET_RUNS}/{{backbone}}",
    shell:
        "exec {PYTHON} -m blockwise.pocket.card --folder {params.folder}"


rule train_pocket:
    input:
        expand(
            f"{POCKET_RUNS}/{{backbone}}/README.md", backbone=pipeline.profile.pocket
        ),
