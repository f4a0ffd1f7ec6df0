"""Datasets: official files, hub, or our generator -> documents -> sessions."""


rule prepare_dataset:
    output:
        f"{RESULTS}/runs/data/{{dataset}}.json",
    benchmark:
        "logs/benchmarks/prepare_dataset/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.dataset_key(wildcards.dataset),
        config=pipeline.config_file,
        cache=f"{RESULTS}/runs/downloads",
    shell:
        "exec {PYTHON} -m blockwise.data.prepare --config {params.config}"
        " --dataset {wildcards.dataset} --cache {params.cache} --output {output}"


# Sessions that do not fit are refused here: no job of theirs takes a server for that.
rule build_sessions:
    input:
        documents=rules.prepare_dataset.output[0],
        model=f"{RESULTS}/runs/backbones/{{backbone}}.json",
    output:
        f"{RESULTS}/runs/sessions/{{backbone}}/{{dataset}}.json",
    benchmark:
        "logs/benchmarks/build_sessions/{backbone}/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.sessions_key(
            wildcards.backbone, wildcards.dataset
        ),
        config=pipeline.config_file,
        prompts="config/prompts",
    shell:
        "{PYTHON} -m blockwise.compaction.sessions --config {params.config}"
        " --dataset {wildcards.dataset} --backbone {wildcards.backbone}"
        " --documents {input.documents} --model {input.model} --output {output}"
        " && exec {PYTHON} -m blockwise.compaction.check_sessions --config {params.config}"
        " --backbone {wildcards.backbone} --sessions {output} --model {input.model}"
        " --prompts {params.prompts}"
