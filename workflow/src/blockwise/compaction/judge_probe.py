"""Questions whose right verdicts are known: how often a judge accepts what is wrong.

Everything in them is invented, so that no judge can know an answer from elsewhere. A wrong answer
names something else of the same kind; a vague one would fit almost any gold answer, which is
where judges were seen to fail. A right one says the gold answer in other words.

Source: for the failure, an audit of LoCoMo in which a judge accepted 62.8% of vague wrong answers.
"""

import json
from pathlib import Path
from typing import NamedTuple

PROBE_FILE = Path(__file__).with_suffix(".jsonl")


class ProbeQuestion(NamedTuple):
    """A question with one answer of each kind."""

    question: str
    gold: str
    right: str
    wrong: str
    vague: str


PROBE = tuple(
    ProbeQuestion(**json.loads(line)) for line in PROBE_FILE.read_text("utf-8").splitlines()
)
