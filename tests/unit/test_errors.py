"""Every error can be shown, acted on, and sent over the bus."""

from __future__ import annotations

import os
import re

import pytest

from gatewayd import errors
from gatewayd.errors import Fault, GatewayError, all_errors

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GatewayError)]
SYSEXITS = {value for name, value in vars(os).items() if name.startswith("EX_")} - {os.EX_OK}


def test_names_are_unique_and_all_are_found() -> None:
    assert {each.name(): each for each in CLASSES} == {
        name: each for name, each in all_errors().items() if each.__module__ == errors.__name__
    }
    assert len({each.name() for each in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_says_what_to_do_and_exits_with_a_meaning(error: type[GatewayError]) -> None:
    assert re.search(r"[.)]$", error.remedy)
    assert error.exit_code in SYSEXITS
    assert re.fullmatch(r"org\.gatewayd\.Error\.[A-Z][A-Za-z]+", error.dbus_name())


@pytest.mark.parametrize("error", [each for each in CLASSES if each.fault is not Fault.OURS])
def test_what_is_not_our_fault_is_not_called_a_defect(error: type[GatewayError]) -> None:
    assert error.remedy != GatewayError.remedy


def test_a_pin_is_never_tried_again_by_itself() -> None:
    assert not errors.PinRefused.recoverable
    assert not errors.PinMissing.recoverable


def test_an_instance_carries_its_facts() -> None:
    error = errors.TooManyRequests("leaf-1 asks too often.", device="leaf-1", retry_after=30)
    assert (str(error), error.message) == ("leaf-1 asks too often.",) * 2
    assert (error.device, error.retry_after) == ("leaf-1", 30)
