"""Compaction: cells of every study, scored as they end; then what is computed from their texts."""

from snakemake.resources import Resource

from blockwise.config.split import PART_PATTERN

BATCH = f"{RESULTS}/runs/compaction/{{backbone}}/{{dataset}}.json"


wildcard_constraints:
    part=PART_PATTERN,


# vLLM gives its worker all cores but one, so servers on the CPU of one machine take turns.
if workflow.resource_settings.cores:
    workflow.global_resources.setdefault("cpu_server", Resource("cpu_server", 1))
# What is timed reserves the machine; recall alone leaves half of it to trainings, which nobody
# times either.
SERVER_THREADS = {True: WHOLE_MACHINE, False: max(1, WHOLE_MACHINE // 2)}


# One job a batch: it serves the backbone and plays the missing cells, timed on one server start.
rule run_compaction:
    input:
        sessions=rules.build_sessions.output[0],
        model=rules.prepare_backbone.output[0],
    output:
        BATCH,
    log:
        job="logs/jobs/run_compaction/{backbone}/{dataset}.log",
        server="logs/servers/{backbone}/{dataset}.log",
    benchmark:
        "logs/benchmarks/run_compaction/{backbone}/{dataset}.tsv"
    wildcard_constraints:
        backbone=pipeline.backbone_pattern(is_split=False),
    threads: lambda wildcards: SERVER_THREADS[pipeline.is_timed(**wildcards)]
    resources:
        gpu=lambda wildcards: pipeline.num_gpus(wildcards.backbone),
        cpu_server=lambda wildcards: int(not pipeline.num_gpus(wildcards.backbone)),
        nodes=1,
        mem_mb=lambda wildcards: pipeline.memory_mb(wildcards.backbone),
    params:
        key=lambda wildcards: pipeline.compaction_key(
            wildcards.backbone, wildcards.dataset
        ),
        config=pipeline.config_file,
        prompts="config/prompts",
        store=f"{RESULTS}/cells",
        timed=lambda wildcards: TIMED if pipeline.is_timed(**wildcards) else "",
        part=lambda wildcards: [
            f"--part={part}" for part in [wildcards.get("part")] if part
        ],
    shell:
        "logged {log.job} {params.timed} {PYTHON} -m blockwise.compaction.play_batch"
        " --config {params.config}"
        " --backbone {wildcards.backbone} --sessions {input.sessions} --model {input.model}"
        " --prompts {params.prompts} --store {params.store} --server-log {log.server}"
        " {params.part} --output {output}"


# The same for a part of a batch: `timing-start0-1of4` (of the first server start), `recall-1of2`.
# Each is a server of its own, so two server starts never share a process.
use rule run_compaction as run_compaction_part with:
    output:
        f"{RESULTS}/runs/parts/{{backbone}}/{{dataset}}/{{part}}.json",
    log:
        job="logs/jobs/run_compaction/{backbone}/{dataset}/{part}.log",
        server="logs/servers/{backbone}/{dataset}/{part}.log",
    benchmark:
        "logs/benchmarks/run_compaction/{backbone}/{dataset}/{part}.tsv"
    wildcard_constraints:
        backbone=pipeline.backbone_pattern(is_split=True),


# From its parts to the file that one job would have written; without a server or a GPU.
rule join_compaction:
    input:
        sessions=rules.build_sessions.output[0],
        model=rules.prepare_backbone.output[0],
        parts=lambda wildcards: expand(
            rules.run_compaction_part.output[0],
            **wildcards,
            part=pipeline.parts(wildcards.backbone, wildcards.dataset),
        ),
    output:
        BATCH,
    log:
        job="logs/jobs/join_compaction/{backbone}/{dataset}.log",
    benchmark:
        "logs/benchmarks/join_compaction/{backbone}/{dataset}.tsv"
    wildcard_constraints:
        backbone=pipeline.backbone_pattern(is_split=True),
    params:
        key=lambda wildcards: [
            pipeline.compaction_key(wildcards.backbone, wildcards.dataset),
            stage_code_key(["blockwise.compaction.join"]),
        ],
        config=pipeline.config_file,
        prompts="config/prompts",
        store=f"{RESULTS}/cells",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.compaction.join --config {params.config}"
        " --backbone {wildcards.backbone} --sessions {input.sessions} --model {input.model}"
        " --prompts {params.prompts} --store {params.store} --parts {input.parts}"
        " --output {output}"


# A published embedder, once for all batches: none may differ from the others in it.
rule fetch_embedder:
    output:
        f"{RESULTS}/runs/embedder.json",
    log:
        job="logs/jobs/fetch_embedder.log",
    benchmark:
        "logs/benchmarks/fetch_embedder.tsv"
    retries: 2
    resources:
        gpu=0,
    params:
        key=lambda wildcards: pipeline.fetched_embedder_key(),
        config=pipeline.config_file,
    shell:
        "logged {log.job} {PYTHON} -m blockwise.compaction.embedder_model --config {params.config}"
        " --output {output}"


# Cosines between the summaries of repeats (compaction_stability).
rule compare_summaries:
    input:
        batch=BATCH,
        fetched=pipeline.fetched_embedder_files(),
    output:
        f"{RESULTS}/runs/similarity/{{backbone}}/{{dataset}}.json",
    log:
        job="logs/jobs/compare_summaries/{backbone}/{dataset}.log",
    benchmark:
        "logs/benchmarks/compare_summaries/{backbone}/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.similarity_key(),
        config=pipeline.config_file,
        store=f"{RESULTS}/cells",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.compaction.similarity --config {params.config}"
        " --batch {input.batch} --store {params.store} --fetched {input.fetched}"
        " --output {output}"


# Verdicts of the judge on recall answers; without a judge, a file that says so.
rule judge_answers:
    input:
        batch=BATCH,
    output:
        f"{RESULTS}/runs/judge/{{backbone}}/{{dataset}}.json",
    log:
        job="logs/jobs/judge_answers/{backbone}/{dataset}.log",
    benchmark:
        "logs/benchmarks/judge_answers/{backbone}/{dataset}.tsv"
    params:
        key=lambda wildcards: pipeline.judge_key(),
        config=pipeline.config_file,
        prompts="config/prompts",
        store=f"{RESULTS}/cells",
    shell:
        "logged {log.job} {PYTHON} -m blockwise.compaction.judging --config {params.config}"
        " --batch {input.batch} --store {params.store} --prompts {params.prompts}"
        " --output {output}"
