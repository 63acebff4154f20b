"""Who comes in: the bus says who calls, polkit says what he may. The caller's own word counts for nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from ..errors import NotAuthorized
from .access import Action, refusal
from .base import Caller
from .bus import BusConnection, BusError

_log = logging.getLogger(__name__)


class Door:
    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def admit(self, sender: str, actions: Iterable[Action], interactive: bool) -> Caller:
        """Whoever has the unique name ``sender``, if he has all the ``actions``; else raises NotAuthorized.

        Root and the daemon's own user have all, whether or not polkit can be asked; nobody else has any without it.
        ``interactive``: he may be asked for an administrator's password, which takes as long as it takes.
        """
        try:
            uid = await self._connection.unix_user(sender)
            if uid not in (0, os.geteuid()):
                for action in sorted(actions):
                    if not await self._connection.polkit(sender, action, interactive):
                        _log.info("the user with uid %d was refused: %s", uid, action)
                        raise refusal(action, f"the user with uid {uid}")
        except BusError as error:
            raise NotAuthorized(str(error)) from None
        return Caller(uid, sender)
