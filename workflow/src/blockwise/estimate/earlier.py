"""What an earlier run measured, read from its tables: speeds, and volumes that nobody can plan."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from blockwise.compaction.plan import PlannedCell
from blockwise.estimate.walk import NaturalVolume

NUM_CARD_REQUESTS = 8  # of the card's second decode speed
MIN_ROWS = 8  # fewer requests say little about prices
TABLES = ("engine_cards", "compaction_cells", "compaction_requests", "mxfp4_runs")
KIND = ["dataset", "prompt", "arm", "block_size_tokens"]
"""What a natural volume depends on: a concise summary may take a fiftieth of the budget that a
detailed one exhausts."""


@dataclass(frozen=True)
class EarlierRun:
    """The tables of a finished run, an empty frame for each that is missing."""

    name: str
    cards: pd.DataFrame
    cells: pd.DataFrame
    requests: pd.DataFrame
    training: pd.DataFrame

    def card(self, backbone: str) -> dict[str, float]:
        """The numbers of a backbone's median card; empty where no server of it was started."""
        if self.cards.empty:
            return {}
        own = self.cards[self.cards["backbone"] == backbone]
        return {} if own.empty else dict(own.median(numeric_only=True).dropna())

    def prices(self, backbone: str) -> dict[str, float]:
        """Prices of a `Speed` that were measured: by the card, and by timed requests.

        One request takes step + request, eight take step + 8 requests. Requests beside which
        nothing ran give the step at the run's own contexts, and the line through their TTFTs.
        """
        card = self.card(backbone)
        if not card:
            return {}
        one_s = 1 / card["decode_1_tokens_per_s"]
        eight_s = NUM_CARD_REQUESTS / card["decode_8_tokens_per_s"]
        request_s = max(0.0, (eight_s - one_s) / (NUM_CARD_REQUESTS - 1))
        prices = {
            "step_s": max(0.0, one_s - request_s),
            "step_request_s": request_s,
            "startup_s": card["startup_s"],
        }
        alone = self._alone(backbone)
        decoded = alone[alone["completion_tokens"] > 1] if len(alone) else alone
        if len(alone) < MIN_ROWS or decoded.empty:
            return prices
        per_token_s = decoded["decode_s"].sum() / (decoded["completion_tokens"] - 1).sum()
        uncached = alone["prompt_tokens"] - alone["cached_tokens"]
        token_s, wait_s = np.polyfit(uncached, alone["ttft_s"], 1)
        rest_s = (alone["wall_s"] - alone["ttft_s"] - alone["decode_s"]).median()
        return {
            **prices,
            "step_s": max(0.0, float(per_token_s) - request_s),
            "step_context_token_s": 0.0,
            "prefill_token_s": max(0.0, float(token_s)),
            "prefill_context_token_s": 0.0,
            "request_s": max(0.0, float(wait_s)) + max(0.0, float(rest_s)),
        }

    def volumes(self, backbone: str) -> "Volumes":
        """What answers of a backbone took of their budgets."""
        own = self._own_requests(backbone)
        if own.empty:
            return Volumes(NaturalVolume(), {})
        mean = _mean_volume(own, NaturalVolume())
        kinds = own.fillna({"prompt": "", "block_size_tokens": 0}).groupby(KIND)
        return Volumes(mean, {kind: _mean_volume(alike, mean) for kind, alike in kinds})

    def train_step_s(self) -> dict[str, float]:
        """Seconds of a training step, by arm."""
        if self.training.empty:
            return {}
        done = self.training[self.training["num_steps_done"] > 0]
        per_step = (done["train_s"] / done["num_steps_done"]).groupby(done["arm"]).mean()
        return {str(arm): float(value) for arm, value in per_step.items()}

    def _own_requests(self, backbone: str) -> pd.DataFrame:
        if self.requests.empty or self.cells.empty:
            return pd.DataFrame()
        kept = ["cell_key", "prompt", "volume_mode", "num_bystanders"]
        cells = self.cells.drop_duplicates("cell_key")[kept]
        return self.requests[self.requests["backbone"] == backbone].merge(cells, on="cell_key")

    def _alone(self, backbone: str) -> pd.DataFrame:
        """Timed requests beside which nothing ran."""
        own = self._own_requests(backbone)
        if own.empty:
            return own
        is_worker = (own["role"] == "worker") & (own["arm"] == "sequential")
        is_alone = own["timing_block_id"].notna() & (own["num_bystanders"] == 0)
        known = own[["cached_tokens", "decode_s", "ttft_s"]].notna().all(axis=1)
        return own[is_alone & known & (is_worker | (own["role"] == "agent"))]


@dataclass(frozen=True)
class Volumes:
    """Natural volumes of one backbone: its mean, and of cells alike."""

    mean: NaturalVolume
    by_kind: dict[tuple[object, ...], NaturalVolume]

    def of(self, dataset: str, cell: PlannedCell) -> NaturalVolume:
        """Of cells alike in dataset, prompt, arm and block size; the mean where none was played."""
        arm = cell.spec.strategy or cell.spec.layout
        kind = (dataset, cell.prompt, arm, cell.spec.block_size_tokens or 0)
        return self.by_kind.get(kind, self.mean)


def _mean_volume(requests: pd.DataFrame, unknown: NaturalVolume) -> NaturalVolume:
    """Mean shares of the budget that the answers of some requests used."""
    share = requests["completion_tokens"] / requests["max_tokens"]
    is_natural = (requests["role"] == "worker") & (requests["volume_mode"] == "natural")
    is_asked = requests["role"] == "question"
    decoded = requests.loc[is_natural, "completion_tokens"].sum()
    thought = requests.loc[is_natural, "thinking_tokens"].sum()
    return NaturalVolume(
        float(share[is_natural].mean()) if decoded else unknown.worker_frac,
        float(share[is_asked].mean()) if is_asked.any() else unknown.answer_frac,
        float(1 - thought / decoded) if decoded else unknown.kept_frac,
    )


def load_earlier(folder: Path) -> EarlierRun:
    """The tables of a run; a folder without them is a run that was never made."""
    files = [folder / f"{name}.csv" for name in TABLES]
    frames = [pd.read_csv(file) if file.is_file() else pd.DataFrame() for file in files]
    return EarlierRun(str(folder), *frames)
