"""Datasets: official files, hub, or our generator -> documents -> sessions."""


wildcard_constraints:
    dataset="[a-z0-9._-]+",


rule prepare_dataset:
    output:
        f"{RESULTS}/runs/data/{{dataset}}.json",
    log:
        job="logs/jobs/prepare_dataset/{dataset}.log",
    benchmark:
        "logs/benchmarks/prepare_dataset/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.dataset_key(wildcards.dataset),
        config=pipeline.config_file,
        cache=f"{RESULTS}/runs/downloads",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.data.prepare --config {params.config}"
        " --dataset {wildcards.dataset} --cache {params.cache} --output {output}"


# Sessions that do not fit are refused here: no job of theirs takes a server for that.
rule build_sessions:
    input:
        documents=rules.prepare_dataset.output[0],
        model=f"{RESULTS}/runs/backbones/{{backbone}}.json",
    output:
        f"{RESULTS}/runs/sessions/{{backbone}}/{{dataset}}.json",
    log:
        job="logs/jobs/build_sessions/{backbone}/{dataset}.log",
    benchmark:
        "logs/benchmarks/build_sessions/{backbone}/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.sessions_key(
            wildcards.backbone, wildcards.dataset
        ),
        config=pipeline.config_file,
        prompts="config/prompts",
    shell:
        "( logged {log.job} {PYTHON} -m blockwise.compaction.sessions --config {params.config}"
        " --dataset {wildcards.dataset} --backbone {wildcards.backbone}"
        " --documents {input.documents} --model {input.model} --output {output} )"
        " && logged {log.job} {PYTHON} -m blockwise.compaction.check_sessions --config {params.config}"
        " --backbone {wildcards.backbone} --sessions {output} --model {input.model}"
        " --prompts {params.prompts}"
