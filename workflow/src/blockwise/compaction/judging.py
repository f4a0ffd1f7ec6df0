"""The judge job: ask a model of another family whether each recall answer is right.

    python -m blockwise.compaction.judging --config ... --batch ... --store ... --prompts ...

The official scores come first; verdicts stand beside them, with the share of wrong and vague
answers of a built-in set (`judge_probe`) that this judge accepts. A verdict is kept in the cell
store as soon as it is given: a rerun asks only what is new, whatever died before.

An answer is text that a model wrote about documents that anybody may have written, so it may
hold instructions to the judge. What limits them: question, gold and answer enter the prompt as
JSON strings of one line each, whose quotes are escaped, so that no text can end its own string
or look like a line of the prompt; all placeholders are replaced in one pass, so
that a placeholder inside a text stays text; the prompt says that the strings are data; and only
a reply that is one of two words counts. A judge that is talked into that word all the same is
what the false-accept rate is there to expose.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import openai
import tenacity

from blockwise.artifacts import read_model, read_sealed, write_model, write_sealed
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.judge_probe import PROBE, ProbeQuestion
from blockwise.compaction.judgements import (
    Item,
    JudgeErrors,
    JudgeIdentity,
    Judgements,
    Verdict,
    VerdictRecord,
    recall_items,
)
from blockwise.compaction.records import Batch
from blockwise.config.judge import Judge
from blockwise.config.profile import Profile
from blockwise.config.prompts import load_prompt, prompt_path
from blockwise.errors import ArtifactError, ConfigError, EngineError, run_command
from blockwise.progress import WorkProgress
from blockwise.serving.answer import TransientEngineError
from blockwise.serving.api_key import NO_KEY, read_key, without_key
from blockwise.serving.http_json import is_local

PLACEHOLDERS = ("{{question}}", "{{gold}}", "{{answer}}")
PLACEHOLDER = re.compile("|".join(re.escape(name) for name in PLACEHOLDERS))

CONCURRENT_VERDICTS = 8  # a batched endpoint decodes them together; few enough for a shared one
MAX_REPLY_TOKENS = 2048  # a verdict is one word; the rest is room for a judge that thinks first
NUM_ATTEMPTS = 3
RETRY_WAIT_S = 2.0  # lets a busy endpoint finish what it holds
CONNECT_TIMEOUT_S = 10.0  # a live server accepts at once; more means it is gone
HTTP_TOO_MANY_REQUESTS = 429
HTTP_SERVER_ERROR = 500
NUM_QUOTED_CHARS = 500

NO_JUDGE = "the configuration names no judge"
NOTHING_TO_JUDGE = "the batch holds no recall answers"


def judge_identity(judge: Judge, prompts_folder: Path) -> JudgeIdentity:
    """The judge with the text of its prompt.

    Raises:
        ConfigError: the prompt cannot be read, or a placeholder does not stand in it once.
    """
    text = load_prompt(prompts_folder, judge.prompt).text
    for name in PLACEHOLDERS:
        if text.count(name) != 1:
            raise ConfigError(
                f"{prompt_path(prompts_folder, judge.prompt)} holds {name} {text.count(name)} "
                "times; the judge must be shown each text once: write it exactly once"
            )
    return JudgeIdentity(
        served_model=judge.served_model,
        version=judge.described,
        prompt=text,
        max_reply_tokens=MAX_REPLY_TOKENS,
    )


def fill_prompt(prompt: str, item: Item) -> str:
    """The prompt with the three texts in it, each as a JSON string on one line."""
    texts = dict(zip(PLACEHOLDERS, item, strict=True))
    return PLACEHOLDER.sub(lambda match: _quoted(texts[match[0]]), prompt)


def _quoted(text: str) -> str:
    """A text as one JSON string without any line break, Unicode's own ones included."""
    return json.dumps(" ".join(text.splitlines()), ensure_ascii=False)


def parse_verdict(reply: str) -> Verdict:
    """The verdict of a reply that is one word of the two and nothing else."""
    word = reply.strip()
    return Verdict(word) if word in {Verdict.CORRECT, Verdict.WRONG} else Verdict.UNREADABLE


class JudgeClient:
    """Async client of the judge's endpoint; `async with JudgeClient(...) as client`."""

    def __init__(self, judge: Judge, identity: JudgeIdentity) -> None:
        """Prepare a connection; nothing is sent.

        Raises:
            ConfigError: the environment variable that holds the key is not set.
        """
        self._judge = judge
        self._identity = identity
        self._api_key = _api_key(judge)
        timeout = openai.Timeout(judge.timeout_s, connect=CONNECT_TIMEOUT_S)
        self._client = openai.AsyncOpenAI(
            base_url=judge.url,
            api_key=self._api_key,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not is_local(judge.url), timeout=timeout
            ),
        )

    async def ask(self, item: Item) -> VerdictRecord:
        """Ask about one item, again after a transient failure while attempts are left.

        Raises:
            EngineError: the endpoint refused, or no attempt was answered.
        """
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(NUM_ATTEMPTS),
            wait=tenacity.wait_fixed(RETRY_WAIT_S),
            retry=tenacity.retry_if_exception_type(TransientEngineError),
            reraise=True,
        )
        reply = without_key(
            await attempts(self._reply, fill_prompt(self._identity.prompt, item)), self._api_key
        )
        return VerdictRecord(
            key=self._identity.key(item),
            **item._asdict(),
            verdict=parse_verdict(reply),
            reply=reply,
        )

    async def _reply(self, text: str) -> str:
        """Send one prompt; every failure of the library becomes ours, in words."""
        url, limit_s = self._judge.url, self._judge.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                completion = await self._client.chat.completions.create(
                    model=self._judge.served_model,
                    messages=[{"role": "user", "content": text}],
                    temperature=0.0,
                    max_tokens=self._identity.max_reply_tokens,
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            raise TransientEngineError(
                f"the judge at {url} did not answer within judge.timeout_s = {limit_s:g} "
                f"({NUM_ATTEMPTS} attempts); raise it, or see that the endpoint keeps up. "
                "Verdicts already given are kept"
            ) from error
        except openai.APIStatusError as error:
            code = error.status_code
            words = self._quoted(error.message)
            is_transient = code >= HTTP_SERVER_ERROR or code == HTTP_TOO_MANY_REQUESTS
            kind = TransientEngineError if is_transient else EngineError
            raise kind(
                f"the judge at {url} answers HTTP {code}: {words}; check judge.served_model and "
                "the key. Verdicts already given are kept"
            ) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise TransientEngineError(
                f"the judge at {url} cannot be reached ({type(cause).__name__}: "
                f"{self._quoted(cause)}; "
                f"{NUM_ATTEMPTS} attempts). Start it or mend judge.url (it ends in /v1) and run "
                "the same command again, or set judge to null to go on without it. Verdicts "
                "already given are kept"
            ) from error
        except (openai.APIError, ValueError) as error:
            raise TransientEngineError(f"{_no_completion(url)}: {self._quoted(error)}") from error
        choices = getattr(completion, "choices", None)  # the library passes on a page as text
        if not choices:
            raise TransientEngineError(f"{_no_completion(url)}: {self._quoted(completion)}")
        return choices[0].message.content or ""

    def _quoted(self, said: object) -> str:
        """The beginning of what came back, without the key."""
        return without_key(str(said), self._api_key).strip()[:NUM_QUOTED_CHARS]

    async def __aenter__(self) -> "JudgeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


def _no_completion(url: str) -> str:
    return (
        f"the judge at {url} answers with what is no completion; check judge.url (it ends in /v1)"
    )


def _api_key(judge: Judge) -> str:
    if judge.api_key_env is None:
        return NO_KEY
    return read_key(judge.api_key_env, "judge.api_key_env", "the judge's endpoint")


class VerdictStore:
    """Verdicts that were given before, a file each, beside the cells."""

    def __init__(self, store_folder: Path) -> None:
        self._folder = store_folder / "verdicts"

    def load(self, key: str) -> VerdictRecord | None:
        """A verdict, or None where it is missing or damaged: it is asked for again then."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return read_sealed(path, VerdictRecord)
        except ArtifactError:
            return None

    def save(self, verdict: VerdictRecord) -> None:
        """Keep a verdict."""
        write_sealed(self._path(verdict.key), verdict)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


async def collect_verdicts(
    judge: Judge, identity: JudgeIdentity, items: Sequence[Item], store: VerdictStore
) -> dict[Item, VerdictRecord]:
    """The verdict on every item: those in the store, and the rest asked for and stored.

    Raises:
        ConfigError: the key is not set.
        EngineError: the endpoint fails; what it has answered is stored.
    """
    found: dict[Item, VerdictRecord] = {}
    for item in items:
        verdict = store.load(identity.key(item))
        if verdict is not None:
            found[item] = verdict
    missing = [item for item in items if item not in found]
    if not missing:
        return found
    gate = asyncio.Semaphore(CONCURRENT_VERDICTS)
    title = f"judging by {identity.served_model}"
    with WorkProgress(title, len(items), done=len(found), unit="answers") as progress:
        async with JudgeClient(judge, identity) as client:

            async def ask(item: Item) -> None:
                async with gate:
                    found[item] = await client.ask(item)
                store.save(found[item])
                progress.advance(0)

            await run_together(ask(item) for item in missing)
    return found


def measure_errors(
    probe: Sequence[ProbeQuestion], verdicts: Mapping[Item, VerdictRecord]
) -> JudgeErrors:
    """What the judge said of answers whose right verdict is known.

    Args:
        probe: questions with their right, wrong and vague answers.
        verdicts: the verdict on every answer of the probe.
    """

    def given(kind: str) -> list[Verdict]:
        return [verdicts[Item(one.question, one.gold, getattr(one, kind))].verdict for one in probe]

    right, wrong, vague = given("right"), given("wrong"), given("vague")
    return JudgeErrors(
        num_questions=len(probe),
        num_unreadable=[*right, *wrong, *vague].count(Verdict.UNREADABLE),
        false_accept_frac=_share(Verdict.CORRECT, [*wrong, *vague]),
        false_accept_wrong_frac=_share(Verdict.CORRECT, wrong),
        false_accept_vague_frac=_share(Verdict.CORRECT, vague),
        false_reject_frac=_share(Verdict.WRONG, right),
    )


def _share(verdict: Verdict, given: Iterable[Verdict]) -> float | None:
    """Share of one verdict among the readable ones."""
    readable = [one for one in given if one is not Verdict.UNREADABLE]
    return sum(one is verdict for one in readable) / len(readable) if readable else None


def probe_items(probe: Sequence[ProbeQuestion]) -> list[Item]:
    """Every answer of the probe as the judge is shown it."""
    return [
        Item(one.question, one.gold, answer)
        for one in probe
        for answer in (one.right, one.wrong, one.vague)
    ]


def judge_batch(
    judge: Judge | None, batch: Batch, store_folder: Path, prompts_folder: Path
) -> Judgements:
    """Judge the recall answers of one batch.

    Raises:
        ArtifactError: a record is missing or damaged.
        ConfigError: the prompt is unusable, or the key is not set.
        EngineError: the endpoint fails.
    """
    identity = None if judge is None else judge_identity(judge, prompts_folder)
    items = [] if judge is None else recall_items(batch, store_folder)
    if judge is None or identity is None or not items:
        return Judgements(
            backbone=batch.backbone,
            dataset=batch.dataset,
            judge=identity,
            omitted_reason=NO_JUDGE if judge is None else NOTHING_TO_JUDGE,
            errors=None,
            verdicts=(),
        )
    asked = list(dict.fromkeys([*probe_items(PROBE), *items]))
    verdicts = asyncio.run(collect_verdicts(judge, identity, asked, VerdictStore(store_folder)))
    return Judgements(
        backbone=batch.backbone,
        dataset=batch.dataset,
        judge=identity,
        omitted_reason=None,
        errors=measure_errors(PROBE, verdicts),
        verdicts=tuple(sorted((verdicts[item] for item in items), key=lambda one: one.key)),
    )


def main() -> None:
    """Command line of the judge job: paths only."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for flag in ("config", "batch", "store", "prompts", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    arguments = parser.parse_args()
    profile = read_model(arguments.config, Profile)
    batch = read_model(arguments.batch, Batch)
    judgements = judge_batch(profile.judge, batch, arguments.store, arguments.prompts)
    write_model(arguments.output, judgements)


if __name__ == "__main__":
    run_command(main)
