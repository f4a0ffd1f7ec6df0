"""What adapters share: an attempt to compact that never ends an agent's run.

Only a server or a model that is not there, or a chat template that refuses the conversation, is an
error.
"""

import logging
from typing import Any

from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.messages_record import Outcome
from blockwise.errors import CompactionError

logger = logging.getLogger(__name__)


async def attempt(
    compactor: ChatCompactor, messages: list[dict[str, Any]], **arguments: Any
) -> list[dict[str, Any]] | None:
    """The compacted messages; None where they stay as they are, and the log says why.

    Those that stay verbatim are the same objects as those that were given.

    Args:
        compactor: what compacts them.
        messages: OpenAI chat messages.
        arguments: those of `ChatCompactor.compact`.

    Raises:
        ServerError: there is no such server or model.
        EngineError: the chat template refuses the conversation.
    """
    try:
        result = await compactor.compact(messages, **arguments)
    except CompactionError as error:
        logger.warning("the messages stay as they are: %s", error)
        return None
    if result.status is Outcome.COMPACTED:
        return result.messages
    if result.status is not Outcome.UNCHANGED:
        logger.warning("the messages stay as they are: %s", result.reason)
    return None
