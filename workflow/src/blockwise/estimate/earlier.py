"""What an earlier run measured, read from its tables: speeds, and volumes that nobody can plan."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import nnls  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.compaction.plan import BatchPlan
from blockwise.estimate.clock import Speed
from blockwise.estimate.dry_engine import NaturalVolume

NUM_CARD_REQUESTS = 8  # of the card's second decode speed
MIN_ROWS = 8  # fewer requests say little about three prices
TABLES = ("engine_cards", "compaction_cells", "compaction_requests")
KIND = ["dataset", "prompt", "arm", "block_size_tokens"]  # what a natural volume depends on


@dataclass(frozen=True)
class EarlierRun:
    """The tables of a finished run, an empty frame for each that is missing."""

    name: str
    cards: pd.DataFrame
    cells: pd.DataFrame
    requests: pd.DataFrame
    training: pd.DataFrame

    def card(self, backbone: str) -> pd.Series | None:
        """The median card of a backbone's server starts."""
        if self.cards.empty:
            return None
        own = self.cards[self.cards["backbone"] == backbone]
        return None if own.empty else own.median(numeric_only=True)

    def volume(self, backbone: str) -> NaturalVolume:
        """Mean share of the budget that natural answers used; the budget where none is known."""
        return _mean_volume(self._own_requests(backbone), NaturalVolume())

    def volumes(self, plan: BatchPlan) -> dict[str, NaturalVolume]:
        """The same by cell key, of cells alike in dataset, prompt, arm and block size.

        A concise summary may take a fiftieth of the budget that a detailed one exhausts. Cells
        whose like was not played are left out.
        """
        own = self._own_requests(plan.backbone)
        if own.empty:
            return {}
        mean = _mean_volume(own, NaturalVolume())
        known = {
            kind: _mean_volume(alike, mean)
            for kind, alike in own.fillna({"prompt": "", "block_size_tokens": 0}).groupby(KIND)
        }
        kinds = {
            cell.spec.key: (
                plan.dataset,
                cell.prompt,
                cell.spec.layout,
                cell.spec.block_size_tokens or 0,
            )
            for cell in plan.selected
        }
        return {key: known[kind] for key, kind in kinds.items() if kind in known}

    def speed(self, backbone: str) -> Speed | None:
        """Prices of a backbone's server: of decoding by the card, the rest by timed requests."""
        card = self.card(backbone)
        alone = self._alone(backbone)
        if card is None or len(alone) < MIN_ROWS:
            return None
        # One request takes step + request, eight take step + 8 requests.
        one_s = 1 / card["decode_1_tokens_per_s"]
        eight_s = NUM_CARD_REQUESTS / card["decode_8_tokens_per_s"]
        request_s = max(0.0, (eight_s - one_s) / (NUM_CARD_REQUESTS - 1))
        decoded = alone[alone["completion_tokens"] > 1]
        per_token_s = decoded["decode_s"] / (decoded["completion_tokens"] - 1)
        context = decoded["prompt_tokens"] + decoded["completion_tokens"] / 2
        weights = np.sqrt(decoded["completion_tokens"])
        (fixed_s, context_s), _ = nnls(
            np.c_[np.ones(len(decoded)), context] * weights.to_numpy()[:, None],
            (per_token_s * weights).to_numpy(),
        )
        uncached = alone["prompt_tokens"] - alone["cached_tokens"]
        (wait_s, token_s, token_context_s), _ = nnls(
            np.c_[np.ones(len(alone)), uncached, uncached * alone["prompt_tokens"]],
            alone["ttft_s"].to_numpy(),
        )
        rest_s = (alone["wall_s"] - alone["ttft_s"] - alone["decode_s"]).clip(lower=0).median()
        return Speed(
            step_s=max(0.0, float(fixed_s - request_s)),
            step_request_s=float(request_s),
            step_context_token_s=float(context_s),
            prefill_token_s=float(token_s),
            prefill_context_token_s=float(token_context_s),
            request_s=float(wait_s + rest_s),
            startup_s=float(card["startup_s"]),
            source=f"engine cards and timed requests of {self.name}",
        )

    def train_step_s(self) -> dict[str, float]:
        """Seconds of a training step, by arm."""
        if self.training.empty:
            return {}
        done = self.training[self.training["num_steps_done"] > 0]
        per_step = done["train_s"] / done["num_steps_done"]
        return {
            str(arm): float(value) for arm, value in per_step.groupby(done["arm"]).mean().items()
        }

    def _own_requests(self, backbone: str) -> pd.DataFrame:
        if self.requests.empty or self.cells.empty:
            return pd.DataFrame()
        kept = ["cell_key", "prompt", "volume_mode", "num_bystanders"]
        cells = self.cells.drop_duplicates("cell_key")[kept]
        own = self.requests[self.requests["backbone"] == backbone]
        return own.merge(cells, on="cell_key")

    def _alone(self, backbone: str) -> pd.DataFrame:
        """Timed requests beside which nothing ran."""
        own = self._own_requests(backbone)
        if own.empty:
            return own
        is_timed = own["timing_block_id"].notna()
        is_alone = (own["role"] == "agent") | (
            (own["role"] == "worker") & (own["arm"] == "sequential")
        )
        known = own[["cached_tokens", "decode_s", "ttft_s"]].notna().all(axis=1)
        return own[is_timed & is_alone & known & (own["num_bystanders"] == 0)]


def _mean_volume(requests: pd.DataFrame, unknown: NaturalVolume) -> NaturalVolume:
    """Mean shares of the budget that the answers of some requests used."""
    if requests.empty:
        return unknown
    share = requests["completion_tokens"] / requests["max_tokens"]
    natural = share[(requests["role"] == "worker") & (requests["volume_mode"] == "natural")]
    asked = share[requests["role"] == "question"]
    return NaturalVolume(
        float(natural.mean()) if len(natural) else unknown.worker_frac,
        float(asked.mean()) if len(asked) else unknown.answer_frac,
    )


def load_earlier(folder: Path) -> EarlierRun:
    """The tables of a run; a folder without them is a run that was never made."""
    return EarlierRun(
        str(folder),
        *(_table(folder / f"{name}.csv") for name in (*TABLES, "mxfp4_runs")),
    )


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()
