"""Who may change things."""

from __future__ import annotations

import grp
import os
import pwd

from ..errors import NotAuthorized


def check(uid: int, admin_group: str) -> None:
    """Root, the daemon's own user, and the members of ``admin_group`` ("" = there is none) as it is at this moment.

    May ask a directory service: not for the event loop's thread. Raises NotAuthorized.
    """
    if uid in (0, os.geteuid()) or (admin_group and _is_member(uid, admin_group)):
        return
    raise NotAuthorized(f"the user with uid {uid} may read here, but not change anything")


def _is_member(uid: int, group: str) -> bool:
    try:
        wanted = grp.getgrnam(group).gr_gid
        user = pwd.getpwuid(uid)
    except KeyError:
        return False
    return wanted in os.getgrouplist(user.pw_name, user.pw_gid)
