"""Made-up tables of every figure: realistic in shape, with the columns of the real ones."""

import importlib
import itertools

import pandas as pd

from blockwise.tables.columns import frame
from blockwise.tables.registry import TABLES

CAPTION = "pocket-scale, random weights: timing only"
TIMED_LABELS = (
    "volume_mode",
    "volume_tokens",
    "num_timing_blocks",
    "num_server_starts",
    "gate",
    "num_invalid_cells",
)
NOISE = "random weights: natural volume is noise, not testable at this scale"


def columns_of(name):
    return importlib.import_module(TABLES[name]).COLUMNS


def table_of(name, rows):
    """A table of these rows; columns that a row leaves out are absent."""
    columns = columns_of(name)
    empty = dict.fromkeys(column.name for column in columns)
    return frame([{**empty, **row} for row in rows], columns)


def spread(measure, middle, suffix="", num=3, name="mean", has_interval=True):
    """The columns of a measure over clusters: 10% around its middle, an interval from 6 on."""
    if middle is None or not num:
        return {f"{measure}_num_clusters": 0}
    low, high = sorted((middle * 0.9, middle * 1.1))
    found = {
        f"{measure}_{name}{suffix}": middle,
        f"{measure}_min{suffix}": low,
        f"{measure}_max{suffix}": high,
        f"{measure}_num_clusters": num,
    }
    if name == "mean" and has_interval and num >= 6:
        low, high = sorted((middle * 0.95, middle * 1.05))
        found |= {f"{measure}_low{suffix}": low, f"{measure}_high{suffix}": high}
    return found


def labels(arm, size, num, changes):
    return {
        "experiment": "made_up",
        "backbone": "smollm2-135m",
        "dataset": "hotpotqa",
        "caption": CAPTION,
        "prompt": "detailed",
        "arm": arm,
        "block_size_tokens": size,
        "volume_mode": "forced",
        "volume_tokens": 384,
        "num_timing_blocks": num,
        "num_server_starts": num,
        "gate": "ok" if num >= 6 else "too_few_starts",
        "num_invalid_cells": 0 if num else 3,
    } | changes


def arms(layouts=("target_block", "suffix_target"), sizes=(512, 1024)):
    return [("sequential", None), *itertools.product(layouts, sizes)]


def end_to_end(
    num=3, layouts=("target_block",), sizes=(512, 1024, 2048), answer_tokens=8, **changes
):
    rows = []
    for arm, size in arms(layouts, sizes):
        is_parallel = arm != "sequential"
        wall_s = 7.0 + layouts.index(arm) if is_parallel else 12.0
        share = 0.7 / (1 + answer_tokens / 64) if is_parallel else None
        rows.append(
            {
                "tau_tokens": 4096,
                "answer_tokens": answer_tokens,
                "num_unequal_volume_timing_blocks": 0,
                "speedup_omitted_reason": None if is_parallel else "the reference arm",
                **spread("sequential_stall", share, "_frac", num),
                **spread("wall", wall_s, "_s", num),
                **spread("speedup", 12 / wall_s if is_parallel else None, "", num),
                **spread("ttft_after_compaction", 0.3, "_s", num),
                **spread("total", 20_000, "_tokens", num),
                **labels(arm, size, num, {"volume_tokens": 512} | changes),
            }
        )
    return table_of("compaction_end_to_end", rows)


def speedup_curve(num=3, **changes):
    """Three experiments whose answers grow, and with them what sequential's stall is a share of."""
    tables = [
        end_to_end(num, ("target_block", "suffix_target"), (512,), tokens, **changes)
        for tokens in (8, 64, 256)
    ]
    return pd.concat(tables, ignore_index=True)


def blocking_share(num=3, taus=(1536, 3072), sizes=(512, 1024), **changes):
    rows = []
    for tau, (arm, size) in itertools.product(taus, arms(("suffix_target",), sizes)):
        share = (0.62 if arm == "sequential" else 0.4 + 100 / size) * 1536 / tau
        rows.append(
            {
                "tau_tokens": tau,
                **spread("compaction_stall", share, "_frac", num),
                **spread("num_compactions", round(6 * 1536 / tau), "", num),
                **spread("wall", 9 + 3 * share, "_s", num),
                **labels(arm, size, num, changes),
            }
        )
    return table_of("compaction_blocking_share", rows)


def matched_volume(num=3, num_matched=0, sizes=(512, 1024, 2048), **changes):
    rows = []
    for arm, size in arms(sizes=sizes):
        is_parallel = arm != "sequential"
        gain = 1 + 300 / size if is_parallel else None
        reason = None if is_parallel else "the reference arm"
        rows.append(_matched_row("forced", arm, size, gain, num, reason, changes))
    for arm, size in (("sequential", None), ("target_block", 1024), ("suffix_target", 512)):
        reason = "random weights: only forced equal volume is compared"
        if num_matched:
            reason = "the reference arm" if arm == "sequential" else None
        shown = size if num_matched else None
        gain = 1.5 if num_matched and arm != "sequential" else None
        natural = {"volume_mode": "natural", **changes}
        rows.append(_matched_row("matched", arm, shown, gain, num_matched, reason, natural))
    return table_of("compaction_matched_volume", rows)


def _matched_row(rule, arm, size, gain, num, reason, changes):
    stall = {"stall_num_compactions": 0}
    if num:
        stall = {"stall_p50_s": 1.4, "stall_p95_s": 1.9, "stall_num_compactions": 12}
    return {
        "volume_rule": rule,
        "tau_tokens": 3072,
        "omitted_reason": reason,
        "num_unequal_volume_timing_blocks": 0,
        "volume_mismatch_frac": 0.04 if rule == "matched" and gain else None,
        **spread("compaction_decode_ratio", gain, "", num),
        **spread("speedup", 1 + (gain - 1) / 3 if gain else None, "", num),
        **spread("worker_tpot", 0.012, "_s", num),
        **stall,
        **labels(arm, size, num, changes),
    }


LAYOUTS = ("full_marked", "independent", "suffix_full", "suffix_target", "target_block")


def layouts(num=3, recall=True, **changes):
    rows = []
    for arm, size in arms(LAYOUTS):
        num_workers = 4096 // size if size else 1
        again = 0.2 + LAYOUTS.index(arm) / 8 if size else 0.1
        note = "random weights: answers are noise" if recall else "no recall cell of this layout"
        rows.append(
            {
                "history_tokens": 4096,
                "num_unequal_volume_timing_blocks": 0,
                **spread("num_blocks", num_workers, "", num, "median"),
                **spread("worker_uncached", 4096 * again * num_workers, "_tokens", num),
                **spread("worker_mean_ttft", again * num_workers / 5, "_s", num),
                **spread("compaction_wall", 1 + again, "_s", num),
                **spread("compaction_decode", 200 / again, "_tokens_per_s", num),
                **spread("recall_f1", 0.3 + again / 5 if recall else None, "", num),
                **spread("recall_contains_gold", 0.4 + again / 5 if recall else None, "", num),
                "recall_gate": "capped" if recall else None,
                "recall_num_answers": 12 if recall else 0,
                "recall_note": note,
                **labels(arm, size, num, changes),
            }
        )
    return table_of("compaction_layouts", rows)


def under_load(num=3, num_bystanders=(2, 6), num_requests=120, caps=(None, 2), **changes):
    rows = []
    choices = [("sequential", None, None)]
    choices += itertools.product(("target_block", "suffix_target"), (512,), caps)
    for count, choice, phase in itertools.product(num_bystanders, choices, ("alone", "during")):
        arm, size, cap = choice
        slower = 1 if phase == "alone" else 1.5 + (0 if cap else 2 if size else 0.2) + count / 6
        during = num if phase == "during" else 0
        rows.append(
            {
                "history_tokens": 3072,
                "num_bystanders": count,
                "num_history_blocks": 6 if size else 1,
                "max_concurrent_workers": cap,
                "phase": phase,
                **_percentiles("ttft", 0.05 * slower, num and num_requests),
                **_percentiles("itl", 0.012 * slower, num and num_requests),
                **spread("compaction_wall", 2.5 if cap else 2.0, "_s", during),
                **spread("stall", 2.6 if cap else 2.1, "_s", during),
                **spread("goodput", 150 + 20 * count, "_tokens_per_s", during),
                "num_preemptions": 0 if during else None,
                **labels(arm, size, num, changes),
            }
        )
    return table_of("compaction_under_load", rows)


def eager(num=3, waits_s=(0.0, 4.0), caps=(None,), **changes):
    """Sequential, parallel and eager arms; a wait shortens the stall of the eager ones."""
    arms = [("sequential", None, "sequential", "compact", None)]
    arms += [("target_block", 512, "parallel", kept, None) for kept in ("compact", "keep")]
    arms += [("suffix_target", 512, "parallel", kept, None) for kept in ("compact", "keep")]
    arms += [
        ("suffix_target", 512, "eager", kept, cap) for kept in ("compact", "keep") for cap in caps
    ]
    rows = []
    for wait_s, (arm, size, mode, kept, cap) in itertools.product(waits_s, arms):
        is_eager = mode == "eager"
        stall = {"sequential": 1.0, "parallel": 0.4, "eager": 0.1 / (1 + wait_s)}[mode]
        stall *= 0.8 if kept == "keep" else 1.0
        rows.append(
            {
                "tau_tokens": 4096,
                "mode": mode,
                "open_block": kept,
                "max_background_workers": cap,
                "tool_wait_s": wait_s,
                **_percentiles("stall", 3 * stall, 2 * num, "compactions", has_p99=False),
                **spread("stall_over_sequential", stall, "", num * (mode != "sequential")),
                **spread("working_over_parallel", 0.9 + 0.05 * wait_s, "", num * is_eager),
                **spread("agent_ttft_over_parallel", 1.1, "", num * is_eager),
                **spread("agent_itl_over_parallel", 1.05, "", num * is_eager),
                **spread("unused", 64 if is_eager else 0, "_tokens", num),
                **labels(arm, size, num, {"volume_tokens": 64, **changes}),
            }
        )
    return table_of("compaction_eager", rows)


def _percentiles(latency, middle_s, num_requests, of_what="requests", *, has_p99=True):
    found = {f"{latency}_num_{of_what}": num_requests}
    factors = {"p50": (1, 1.0), "p95": (20, 1.8), "p99": (100, 2.2), "max": (1, 2.5)}
    for name, (fewest, factor) in factors.items():
        if num_requests >= fewest and (has_p99 or name != "p99"):
            found[f"{latency}_{name}_s"] = middle_s * factor
    return found


def accuracy_volume(num=3, sizes=(512, 1024), judge=None, full_history=True, **changes):
    rows = []
    for arm, size in arms(sizes=sizes):
        volume = (96 if arm == "sequential" else 12_000 / size) * (1.2 if "suffix" in arm else 1)
        volume *= 8
        for context in ("compacted", "truncation"):
            f1 = 0.2 + volume / 2000 if context == "compacted" else 0.15
            rows.append(_answers(context, arm, size, f1, num, judge) | _volume(volume, num))
    for arm, f1 in (("closed_book", 0.05), ("full_history", 0.8)):
        shown = num if arm == "closed_book" or full_history else 0
        rows.append(_answers(arm, arm, None, f1, shown, judge) | {"prompt": None})
    if not full_history:
        rows[-1] |= {"omitted_reason": "20000 tokens exceed the window of 16384", "num_cells": 0}
    rows = [row | {name: changes[name] for name in changes} for row in rows]
    return table_of("compaction_accuracy_volume", rows)


def _volume(tokens, num):
    return spread("compaction_output", tokens, "_tokens", num, has_interval=False)


def _recall_labels(arm, size, num):
    told = labels(arm, size, num, {})
    unknown = TIMED_LABELS
    return {name: value for name, value in told.items() if name not in unknown} | {
        "note": "random weights: answers are noise, not testable at this scale",
        "categories": "headline",
        "gate": "cannot_do_task",
        "num_cells": num,
        "num_answers": 4 * num,
        "tau_tokens": 3072,
    }


def _answers(context, arm, size, f1, num, judge):
    told = {"tau_tokens": None} if arm == context else {}
    return {
        **_recall_labels(arm, size, num),
        **told,
        "answer_context": context,
        **spread("f1", f1, "", num),
        **spread("contains_gold", f1 * 1.1, "", num),
        **spread("exact_match", f1 * 0.8, "", num),
        **spread("judged_accuracy", f1 if judge else None, "", num),
        "judge": judge,
        "judge_false_accept_frac": 0.05 if judge else None,
    }


def strategies(num=3, **changes):
    rows = []
    for place, name in enumerate(("sequential", "parallel", "rolling", "mask", "truncate")):
        size = 512 if name in ("parallel", "rolling") else None
        for kept, (asked, number) in itertools.product(
            (0, 20), (("all", 4), ("first part", 1), ("first part", 2), ("first part", 4))
        ):
            f1 = 0.5 - 0.05 * place - 0.03 * number + kept / 1000
            rows.append(
                {
                    **_recall_labels(name, size, num),
                    "budget_tokens": 512,
                    "keep_identifiers": kept,
                    "questions": asked,
                    "num_compactions": number,
                    **spread("kept", 500.0 - 30 * place, "_tokens", num, has_interval=False),
                    **_volume(400.0 * place * number, num),
                    **spread("stall", 1.0 + 2 * place, "_s", num),
                    **spread("requests_a_compaction", 1.0 + place, "", num, has_interval=False),
                    **spread("f1", f1, "", num),
                    **spread("contains_gold", f1 * 1.1, "", num),
                }
            )
            rows[-1].pop("tau_tokens")
    for arm, f1 in (("closed_book", 0.05), ("full_history", 0.8)):
        for asked in ("all", "first part"):
            row = {**_recall_labels(arm, None, num), "prompt": None, "questions": asked}
            row |= {**spread("f1", f1, "", num), **spread("contains_gold", f1 * 1.1, "", num)}
            row.pop("tau_tokens")
            rows.append(row)
    rows = [row | {name: changes[name] for name in changes} for row in rows]
    return table_of("compaction_strategies", rows)


def block_prompts(num=3, sizes=(512, 1024), **changes):
    rows = []
    for (arm, size), prompt in itertools.product(
        arms(sizes=sizes)[1:], ("by content type", "detailed")
    ):
        is_by_type = prompt == "by content type"
        f1 = 0.45 if is_by_type else 0.4
        rows.append(
            {
                **_recall_labels(arm, size, num),
                "prompt": prompt,
                **spread("f1", f1, "", num),
                **spread("contains_gold", f1 * 1.1, "", num),
                **spread("exact_match", f1 * 0.8, "", num),
                **spread("f1_minus_one_prompt", 0.05 if is_by_type else None, "", num),
                **_volume(200_000 / size, num),
                **spread("output_over_input", 60 / size, "_frac", num, has_interval=False),
                **changes,
            }
        )
    return table_of("compaction_block_prompts", rows)


CUT = "random weights: the volume is the cap's, not the model's; not testable at this scale"


def _volume_labels(arm, size, history, num):
    told = labels(arm, size, num, {})
    unknown = TIMED_LABELS
    return {name: value for name, value in told.items() if name not in unknown} | {
        "history_tokens": history,
        "worker_cap_tokens": 64,
        "temperature": 0.8,
        "length_finish_frac": 1.0,
        "gate": "capped",
        "note": f"{CUT}; {num} of {num} workers were cut off at their cap, which levels their "
        "volume",
    }


def length_invariance(num=3, lengths=(1024, 2048, 4096), **changes):
    rows = []
    for history in lengths:
        output = 981 * (history / 2048) ** 0.29
        rows.append(
            {
                **_volume_labels("sequential", None, history, num),
                "num_cells": num,
                **spread("input", history * 0.97, "_tokens", num),
                **spread("output", output, "_tokens", num),
                **spread("output_over_input", output / history, "_frac", num),
                "output_elasticity": 0.29 if len(lengths) > 2 and num else None,
                **changes,
            }
        )
    return table_of("compaction_length_invariance", rows)


def stability(num=10, lengths=(1024, 2048), sizes=(512, 1024), sessions=("s0",), **changes):
    rows = []
    choices = itertools.product(arms(("target_block",), sizes), lengths, sessions)
    for (arm, size), history, session in choices:
        cv = (0.8 if size is None else size / 2048) * (1 + sessions.index(session) / 10)
        values = {"output_cv": cv, "cosine_mean": 1 - cv / 2} if num > 1 else {}
        if num >= 10:
            values |= {"output_cv_low": cv * 0.7, "output_cv_high": cv * 1.6}
            values |= {"cosine_low": 1 - cv * 0.7, "cosine_high": 1 - cv * 0.4}
        rows.append(
            {
                **_volume_labels(arm, size, history, num),
                "session_id": session,
                "seed": 0,
                "input_tokens": history - 40,
                "num_repeats": num,
                "embedder": "TF-IDF of words, fitted once on all compared summaries",
                **values,
                **changes,
            }
        )
    return table_of("compaction_stability", rows)


LADDER = {"concise": 0.02, "brief": 0.05, "moderate": 0.1, "detailed": 0.2, "very_detailed": 0.4}


def volume_control(num=3, sizes=(512, 1024), layouts=("target_block",), **changes):
    rows = []
    for (arm, size), (prompt, target) in itertools.product(arms(layouts, sizes), LADDER.items()):
        ratio = 0.01 + target / 8 + (100 / size if size else 0)
        rows.append(
            {
                **_volume_labels(arm, size, 2048, num),
                "prompt": prompt,
                "target_frac": target,
                "num_cells": num,
                **spread("output_over_input", ratio, "_frac", num),
                "output_cv": 0.2 + target if num > 1 else None,
                "length_finish_frac": 0.5 if num else None,
                **changes,
            }
        )
    return table_of("compaction_volume_control", rows)


MADE_UP = {
    "compaction_end_to_end": end_to_end,
    "compaction_speedup_curve": speedup_curve,
    "compaction_blocking_share": blocking_share,
    "compaction_matched_volume": matched_volume,
    "compaction_layouts": layouts,
    "compaction_under_load": under_load,
    "compaction_eager": eager,
    "compaction_accuracy_volume": accuracy_volume,
    "compaction_block_prompts": block_prompts,
    "compaction_length_invariance": length_invariance,
    "compaction_stability": stability,
    "compaction_volume_control": volume_control,
    "compaction_strategies": strategies,
}


def many(made_up, num_backbones, num_datasets, other=None, **changes):
    """The table of many backbones and datasets; `other` adds the same rows with these changes."""
    backbones = [changes.pop("backbone")] if "backbone" in changes else None
    pairs = itertools.product(
        backbones or [f"model-{index}" for index in range(num_backbones)],
        [f"data-{index}" for index in range(num_datasets)],
    )
    told = [{"backbone": backbone, "dataset": dataset, **changes} for backbone, dataset in pairs]
    told += [{**one, **other} for one in told] if other else []
    return pd.concat([made_up(**one) for one in told], ignore_index=True)
