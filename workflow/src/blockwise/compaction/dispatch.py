"""Send several requests at once; the first failure cancels the rest and is what one sees."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from blockwise.errors import BlockwiseError

T = TypeVar("T")


async def run_together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently and return their results in order.

    Raises:
        BlockwiseError: the first that any of them raised; the others are cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* BlockwiseError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
