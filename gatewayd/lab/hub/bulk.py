"""POST /devices: up to 100 operations in one request, each with its own outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .errors import Code, HubError
from .registry import Registry
from .twins import Twins

LIMIT: Final = 100
Item = Mapping[str, Any]


def run(items: object, registry: Registry, twins: Twins) -> dict[str, Any]:
    """Carry out what can be; returns the result document. Raises HubError when the request as a whole is wrong."""
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise HubError(Code.ARGUMENT_INVALID, "the body is not a list of devices.")
    if len(items) > LIMIT:
        raise HubError(Code.TOO_MANY_DEVICES, f"at most {LIMIT} devices in one request.")
    errors = []
    for item in items:
        try:
            _operation(item)(item, registry, twins)
        except HubError as error:
            errors.append(
                {
                    "deviceId": item.get("id"),
                    "errorCode": error.code.title,
                    "errorStatus": error.message,
                    "moduleId": None,
                    "operation": item.get("importMode"),
                }
            )
    return {"isSuccessful": not errors, "errors": errors, "warnings": []}


def _create(item: Item, registry: Registry, twins: Twins) -> None:
    registry.put(_id(item), _document(item), None)
    if item.get("tags") or item.get("properties"):
        twins.write(_id(item), item, replace=True)


def _update(item: Item, registry: Registry, twins: Twins) -> None:
    registry.put(_id(item), _document(item), "*")


def _update_if_match(item: Item, registry: Registry, twins: Twins) -> None:
    registry.put(_id(item), _document(item), _etag(item, "eTag"))


def _delete(item: Item, registry: Registry, twins: Twins) -> None:
    registry.delete(_id(item), "*")


def _delete_if_match(item: Item, registry: Registry, twins: Twins) -> None:
    registry.delete(_id(item), _etag(item, "eTag"))


def _update_twin(item: Item, registry: Registry, twins: Twins) -> None:
    twins.update(_id(item), item, None, replace=False)


def _update_twin_if_match(item: Item, registry: Registry, twins: Twins) -> None:
    twins.update(_id(item), item, _etag(item, "twinETag"), replace=False)


_OPERATIONS: Final[Mapping[str, Callable[[Item, Registry, Twins], None]]] = {
    "create": _create,
    "update": _update,
    "updateIfMatchETag": _update_if_match,
    "delete": _delete,
    "deleteIfMatchETag": _delete_if_match,
    "updateTwin": _update_twin,
    "updateTwinIfMatchETag": _update_twin_if_match,
}


def _operation(item: Item) -> Callable[[Item, Registry, Twins], None]:
    operation = _OPERATIONS.get(str(item.get("importMode")))
    if operation is None:
        raise HubError(Code.ARGUMENT_INVALID, f"importMode is none of {', '.join(_OPERATIONS)}.")
    return operation


def _id(item: Item) -> str:
    return str(item.get("id", ""))


def _document(item: Item) -> dict[str, Any]:
    return {**item, "deviceId": _id(item)}


def _etag(item: Item, key: str) -> str:
    etag = item.get(key)
    if not isinstance(etag, str):
        raise HubError(Code.ARGUMENT_INVALID, f"{key} is missing.")
    return etag
