"""One-line notices: what a user should know and need not act on. Each is said once."""

from __future__ import annotations

import logging

_logger = logging.getLogger("chainrule.data")
_said: set[str] = set()


def notice(text: str) -> None:
    """Say `text` on standard error, unless logging is set up otherwise, and only the first time."""
    if text not in _said:
        _said.add(text)
        _logger.warning(text)
