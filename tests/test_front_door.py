"""The front door: few names, all there, one way to call them, and one error that catches all others."""

import inspect

import pytest

import vmcompat as vc
from vmcompat import errors


def test_there_are_at_most_twenty_names_and_each_is_there() -> None:
    assert vc.__all__ == sorted(vc.__all__)
    assert len(vc.__all__) <= 20
    for name in vc.__all__:
        assert getattr(vc, name) is not None
    assert {"CpuMap", "Fleet", "VmcompatError", "read_fleet"} <= set(vc.__all__)


def test_every_name_that_is_listed_is_there() -> None:
    listed = dir(vc)
    assert {"admit", "retire", "pool_curve", *vc.__all__} <= set(listed)
    assert [name for name in listed if not hasattr(vc, name)] == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vmcompat' has no attribute 'read_flet'"):
        vc.read_flet  # noqa: B018


def test_one_error_catches_all_that_vmcompat_raises() -> None:
    own = [e for e in vars(errors).values() if inspect.isclass(e) and e.__module__ == errors.__name__]
    assert len(own) == 7
    assert all(issubclass(e, vc.VmcompatError) for e in own)
    assert not issubclass(vc.VmcompatError, ValueError)


@pytest.mark.parametrize("function", [vc.read_fleet, vc.CpuMap.load, vc.Fleet.select, vc.Fleet.baselines, vc.compare])
def test_what_follows_the_first_argument_is_given_by_keyword(function: object) -> None:
    assert callable(function)
    parameters = [p for name, p in inspect.signature(function).parameters.items() if name != "self"]
    assert {p.kind for p in parameters[1:]} <= {inspect.Parameter.KEYWORD_ONLY}


def test_a_document_error_says_where_and_keeps_the_parts() -> None:
    error = errors.DocumentError("is empty; fetch it again", source="h1.xml", line=3)
    assert str(error) == "h1.xml:3: is empty; fetch it again"
    assert (error.problem, error.source, error.line) == ("is empty; fetch it again", "h1.xml", 3)
    assert str(errors.DocumentError("is empty", source="h1.xml")) == "h1.xml: is empty"
