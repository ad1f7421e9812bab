"""Changes told to coroutines from any thread."""

import asyncio

from api.notify import Notifier, wait_for


def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    async def look_then_wait() -> bool:
        notifier = Notifier()
        change = notifier.next_change()
        assert notifier.next_change() is change
        await asyncio.to_thread(notifier.notify)
        await wait_for(change, 20)
        return change.is_set() and notifier.next_change() is not change

    assert asyncio.run(look_then_wait())
