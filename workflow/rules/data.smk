"""Datasets: official files, hub, or our generator -> documents -> sessions."""


rule prepare_dataset:
    output:
        f"{RESULTS}/runs/data/{{dataset}}.json",
    params:
        key=lambda wildcards: pipeline.dataset_key(wildcards.dataset),
        config=pipeline.config_file,
        cache=f"{RESULTS}/runs/downloads",
    shell:
        "exec {PYTHON} -m blockwise.data.prepare --config {params.config}"
        " --dataset {wildcards.dataset} --cache {params.cache} --output {output}"


rule build_sessions:
    input:
        documents=rules.prepare_dataset.output[0],
        model=f"{RESULTS}/runs/backbones/{{backbone}}.json",
    output:
        f"{RESULTS}/runs/sessions/{{backbone}}/{{dataset}}.json",
    params:
        key=lambda wildcards: pipeline.sessions_key(
            wildcards.backbone, wildcards.dataset
        ),
        config=pipeline.config_file,
    shell:
        "exec {PYTHON} -m blockwise.data.sessions --config {params.config}"
        " --dataset {wildcards.dataset} --backbone {wildcards.backbone}"
        " --documents {input.documents} --model {input.model} --output {output}"
