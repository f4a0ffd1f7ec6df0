"""Preflight: every check has a verdict, and a failed one says what to change."""

import asyncio
import io

import pytest
from rich.console import Console

from blockwise.compaction.layouts import load_layout
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.models.renderer import Renderer
from blockwise.run.preflight import (
    Check,
    compaction_check,
    engine_checks,
    machine_checks,
    made_up_history,
    print_report,
)
from blockwise.serving.client import EngineClient
from blockwise.serving.probe import probe


def test_machine_checks_compare_with_what_is_needed(tmp_path):
    names = [check.name for check in machine_checks(tmp_path)]
    assert names[:2] == ["free memory", "free disk"]
    assert all(check.remedy for check in machine_checks(tmp_path))


def test_the_report_shows_a_remedy_only_where_a_check_failed():
    text = io.StringIO()
    checks = [Check("fine", "1", True, "hidden"), Check("bad", "0", False, "do this")]
    print_report(checks, Console(file=text, width=100))
    assert "do this" in text.getvalue()
    assert "hidden" not in text.getvalue()


@pytest.mark.parametrize("name", ["pocket-4m"])
def test_the_made_up_history_fits_a_backbone_that_knows_no_english(project_folder, name):
    renderer = Renderer(str(project_folder / "workflow" / "pocket" / name / "model"))
    history = made_up_history(renderer, 2048)
    assert 1500 < sum(renderer.count_text(turn.text) for turn in history.turns) < 2600


@pytest.mark.engine
def test_a_real_backbone_passes_in_both_modes(engine_server):
    running = engine_server

    async def ask():
        async with EngineClient(running.server, running.backbone, running.renderer) as engine:
            card = await probe(
                engine, running.server, running.name, running.backbone, running.model
            )
            layouts = [SEQUENTIAL, *known_layouts()]
            assert all(load_layout(name).cached_blocks(0, 1) in (0, 1) for name in layouts)
            compactions = [
                await compaction_check(engine, running.renderer, name, card.context_window_tokens)
                for name in layouts
            ]
            return [*engine_checks(card), *compactions]

    checks = asyncio.run(ask())
    assert [check.name for check in checks if not check.passed] == []
    assert any(check.name == "compaction, target_block" for check in checks)
