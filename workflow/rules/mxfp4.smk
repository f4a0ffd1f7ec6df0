"""MXFP4: corpus, training runs (arm x seed), and what is measured beside them."""

MXFP4_RUNS = f"{RESULTS}/runs/mxfp4"
TRAINING = pipeline.training


wildcard_constraints:
    experiment="[a-z0-9._-]+",
    run="all|[0-9]+(-[0-9]+)?",
    part="[0-9]+",
    start="[0-9]+",


rule prepare_corpus:
    output:
        f"{MXFP4_RUNS}/corpus/corpus.json",
        f"{MXFP4_RUNS}/corpus/train.bin",
        f"{MXFP4_RUNS}/corpus/validation.bin",
    log:
        job="logs/jobs/prepare_corpus.log",
    benchmark:
        "logs/benchmarks/prepare_corpus.tsv"
    params:
        key=TRAINING.corpus_key(),
        config=pipeline.config_file,
        cache=f"{RESULTS}/runs/downloads",
        folder=f"{MXFP4_RUNS}/corpus",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.corpus --config {params.config}"
        " --cache {params.cache} --output-dir {params.folder}"


# One job an experiment, a seed or a run: `mxfp4.jobs`. Nobody times these.
rule train_mxfp4:
    input:
        corpus=rules.prepare_corpus.output,
    output:
        f"{MXFP4_RUNS}/training/{{experiment}}/{{run}}.json",
    log:
        job="logs/jobs/train_mxfp4/{experiment}/{run}.log",
    benchmark:
        "logs/benchmarks/train_mxfp4/{experiment}/{run}.tsv"
    threads: TRAINING.threads() * TRAINING.processes_per_node()
    resources:
        **TRAINING.step_resources(),
        gpu=TRAINING.num_gpus(),
        nodes=TRAINING.num_nodes(),
        mem_mb=TRAINING.memory_mb(),
    params:
        key=lambda wildcards: TRAINING.training_key(wildcards.experiment),
        config=pipeline.config_file,
        starter=TRAINING.starter(),
        launcher=TRAINING.launcher(),
        what=lambda wildcards: TRAINING.arguments(wildcards.experiment, wildcards.run),
        corpus=f"{MXFP4_RUNS}/corpus",
        store=f"{RESULTS}/cells",
        checkpoints=f"{MXFP4_RUNS}/checkpoints",
        records=TRAINING.records_of(pipeline.profile.profile),
    shell:
        "logged {log.job} {params.starter} {PYTHON} {params.launcher} -m blockwise.mxfp4.train_arm"
        " --config {params.config}"
        " --experiment {wildcards.experiment} {params.what:q} --corpus {params.corpus}"
        " --store {params.store} --checkpoints {params.checkpoints} {params.records}"
        " --output {output}"


# Errors of every arm on one shared trajectory.
rule measure_mxfp4:
    input:
        corpus=rules.prepare_corpus.output,
    output:
        f"{MXFP4_RUNS}/diagnostics/{{experiment}}.json",
    log:
        job="logs/jobs/measure_mxfp4/{experiment}.log",
    benchmark:
        "logs/benchmarks/measure_mxfp4/{experiment}.tsv"
    threads: 1
    resources:
        gpu=TRAINING.measuring_gpus(),
        nodes=1,
    params:
        key=lambda wildcards: TRAINING.measurement_key(
            wildcards.experiment, "blockwise.mxfp4.diagnostics"
        ),
        config=pipeline.config_file,
        corpus=f"{MXFP4_RUNS}/corpus",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.diagnostics --config {params.config}"
        " --experiment {wildcards.experiment} --corpus {params.corpus}"
        " --output {output}"


# A published model and the tokens of its text, for what is measured on one.
rule prepare_pretrained:
    output:
        f"{MXFP4_RUNS}/pretrained/model.json",
    log:
        job="logs/jobs/prepare_pretrained.log",
    benchmark:
        "logs/benchmarks/prepare_pretrained.tsv"
    retries: 2
    resources:
        gpu=0,
    params:
        key=TRAINING.pretrained_key(),
        config=pipeline.config_file,
        cache=f"{RESULTS}/runs/downloads",
        folder=f"{MXFP4_RUNS}/pretrained",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.pretrained --config {params.config}"
        " --cache {params.cache} --folder {params.folder}"


# Errors of every arm on the tensors of the published model; a part takes its share of the layers.
rule measure_pretrained:
    input:
        model=rules.prepare_pretrained.output[0],
    output:
        f"{MXFP4_RUNS}/layer_errors/{{experiment}}/{{part}}.json",
    log:
        job="logs/jobs/measure_pretrained/{experiment}/{part}.log",
    benchmark:
        "logs/benchmarks/measure_pretrained/{experiment}/{part}.tsv"
    threads: 1
    resources:
        gpu=TRAINING.measuring_gpus(),
        nodes=1,
        mem_mb=lambda wildcards: TRAINING.pretrained_memory_mb(wildcards.experiment),
    params:
        key=lambda wildcards: TRAINING.measurement_key(
            wildcards.experiment, "blockwise.mxfp4.pretrained_errors"
        ),
        config=pipeline.config_file,
        pretrained=f"{MXFP4_RUNS}/pretrained",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.pretrained_errors --config {params.config}"
        " --experiment {wildcards.experiment} --part {wildcards.part}"
        " --pretrained {params.pretrained} --output {output}"


# One step along each arm's gradient, from the published weights: a job a start.
rule descend_mxfp4:
    input:
        model=rules.prepare_pretrained.output[0],
    output:
        f"{MXFP4_RUNS}/descent/{{experiment}}/{{start}}.json",
    log:
        job="logs/jobs/descend_mxfp4/{experiment}/{start}.log",
    benchmark:
        "logs/benchmarks/descend_mxfp4/{experiment}/{start}.tsv"
    threads: 1
    resources:
        gpu=TRAINING.measuring_gpus(),
        nodes=1,
        mem_mb=lambda wildcards: TRAINING.pretrained_memory_mb(wildcards.experiment),
    params:
        key=lambda wildcards: TRAINING.measurement_key(
            wildcards.experiment, "blockwise.mxfp4.descent"
        ),
        config=pipeline.config_file,
        pretrained=f"{MXFP4_RUNS}/pretrained",
        store=f"{RESULTS}/cells",
        records=TRAINING.records_of(pipeline.profile.profile),
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.descent --config {params.config}"
        " --experiment {wildcards.experiment} --start {wildcards.start}"
        " --pretrained {params.pretrained} --store {params.store} {params.records}"
        " --output {output}"


rule stress_mxfp4:
    output:
        f"{MXFP4_RUNS}/outliers/{{experiment}}.json",
    log:
        job="logs/jobs/stress_mxfp4/{experiment}.log",
    benchmark:
        "logs/benchmarks/stress_mxfp4/{experiment}.tsv"
    threads: 1
    params:
        key=lambda wildcards: TRAINING.measurement_key(
            wildcards.experiment, "blockwise.mxfp4.outliers"
        ),
        config=pipeline.config_file,
    shell:
        "logged {log.job} {PYTHON} -m blockwise.mxfp4.outliers --config {params.config}"
        " --experiment {wildcards.experiment} --output {output}"


# A timing: it reserves the machine.
rule time_mxfp4:
    output:
        f"{MXFP4_RUNS}/speed/{{experiment}}.json",
    log:
        job="logs/jobs/time_mxfp4/{experiment}.log",
    benchmark:
        "logs/benchmarks/time_mxfp4/{experiment}.tsv"
    threads: WHOLE_MACHINE
    resources:
        gpu=TRAINING.measuring_gpus(),
        nodes=1,
    params:
        key=lambda wildcards: TRAINING.measurement_key(
            wildcards.experiment, "blockwise.mxfp4.speed"
        ),
        config=pipeline.config_file,
        timed=TIMED,
    shell:
        "logged {log.job} {params.timed} {PYTHON} -m blockwise.mxfp4.speed --config {params.config}"
        " --experiment {wildcards.experiment} --output {output}"
