"""The bill of a run before it is paid for: `make estimate`.

    blockwise estimate config/config.yaml config/paper.yaml

No server is started and nothing is downloaded. Cells come from the run's own planner; their
requests and tokens follow by arithmetic (`estimate.walk`), their hours from the prices of a server
(`estimate.speeds`).
"""

from collections.abc import Sequence
from pathlib import Path

import click

from blockwise.command_line import EXISTING_FOLDER, FILE, config_files, run
from blockwise.config.backbones import GgufModel, HubModel
from blockwise.estimate.bill import Bill, DiskLine, Line
from blockwise.estimate.compaction_bill import GB, CompactionBill, Notes
from blockwise.estimate.earlier import load_earlier
from blockwise.estimate.hardware import (
    H100_GB_PER_S,
    H100_GIB,
    H100_TFLOPS,
    Device,
    cpu,
    gpu,
    model_size,
)
from blockwise.estimate.plans import Plans
from blockwise.estimate.report import print_bill, write_bill
from blockwise.estimate.training_bill import TrainingBill
from blockwise.run.pipeline import PROMPTS_FOLDER, Pipeline

DATASET_GB = 0.1  # the distractor validation split of HotpotQA or all of LoCoMo, at most


def estimate(files: Sequence[Path], earlier_folder: Path | None, device: Device) -> Bill:
    """The bill of a configuration.

    Args:
        files: the configuration, the base first.
        earlier_folder: tables of an earlier run; default: of this profile.
        device: the GPU that backbones with `gpus` take.

    Raises:
        ConfigError: the configuration is refused.
    """
    pipeline = Pipeline(files, {})
    profile = pipeline.profile
    earlier = load_earlier(earlier_folder or Path(pipeline.results) / "tables")
    notes = Notes()
    devices = {True: device, False: cpu()}
    plans = Plans(profile, Path(pipeline.results) / "runs", PROMPTS_FOLDER)
    compaction = CompactionBill(pipeline, plans, earlier, devices, notes)
    lines = [line for batch in pipeline.batches() for line in compaction.lines(*batch)]
    disk = _downloads(pipeline)
    if profile.mxfp4 is not None:
        used = devices[profile.mxfp4.device == "cuda"]
        training = TrainingBill(profile.mxfp4, earlier, used, notes)
        lines += training.lines()
        disk += training.disk()
    disk.append(_cells(lines))
    return Bill(
        profile=profile.profile,
        lines=tuple(lines),
        disk=tuple(disk),
        warnings=tuple(notes.warnings),
        assumptions=tuple(notes.assumptions),
    )


def _downloads(pipeline: Pipeline) -> list[DiskLine]:
    profile = pipeline.profile
    lines = []
    for name, backbone in profile.backbones.items():
        is_served = backbone.engine.kind == "vllm"
        if isinstance(backbone.model, HubModel | GgufModel) and is_served:
            size = model_size(backbone)
            lines.append(
                DiskLine(what=f"model {name}", disk_gb=size.weights_bytes / GB, source=size.source)
            )
    for name, dataset in profile.datasets.items():
        if dataset.source.kind in {"hub", "url"}:
            lines.append(DiskLine(what=f"dataset {name}", disk_gb=DATASET_GB, source="assumed"))
    return lines


def _cells(lines: Sequence[Line]) -> DiskLine:
    size = sum(line.disk_gb for line in lines)
    return DiskLine(
        what="cells", disk_gb=size, source="cells, requests and tokens by the size of their records"
    )


POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("estimate")
@config_files
@click.option(
    "--earlier", type=EXISTING_FOLDER, help="Tables of an earlier run.  [default: of this profile]"
)
@click.option(
    "--device-memory-gib", type=POSITIVE, default=H100_GIB, show_default=True, help="Of a GPU."
)
@click.option(
    "--device-tflops", type=POSITIVE, default=H100_TFLOPS, show_default=True, help="Dense bf16."
)
@click.option(
    "--device-gb-per-s", type=POSITIVE, default=H100_GB_PER_S, show_default=True, help="Memory."
)
@click.option("--json", "json_file", type=FILE, help="Also write the whole bill here.")
@click.option("--csv", "csv_file", type=FILE, help="Also write its lines here.")
def command(
    *,
    config: tuple[Path, ...],
    earlier: Path | None,
    device_memory_gib: float,
    device_tflops: float,
    device_gb_per_s: float,
    json_file: Path | None,
    csv_file: Path | None,
) -> None:
    """Print what a run will cost before it is paid for.

    CONFIG are configuration files in order; none means config/config.yaml. No server is started
    and nothing is downloaded. Sizes of a device are those of its data sheet.
    """
    bill = estimate(config, earlier, gpu(device_memory_gib, device_tflops, device_gb_per_s))
    print_bill(bill)
    write_bill(bill, json_file, csv_file)


if __name__ == "__main__":
    run(command)
