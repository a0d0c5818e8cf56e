"""Errors that users see."""

from __future__ import annotations

import pickle

import pytest

from scvitune.errors import Faults, InputError, ScvituneError, StudyError, nearest, one_of


def test_all_errors_have_one_base():
    assert issubclass(InputError, ScvituneError)
    assert issubclass(StudyError, ScvituneError)
    assert not issubclass(StudyError, InputError)


def test_one_fault_is_its_own_message_and_several_are_numbered():
    assert str(InputError("a is wrong.")) == "a is wrong."
    error = InputError(["a is wrong.", "b is wrong."])
    assert error.faults == ("a is wrong.", "b is wrong.")
    assert str(error) == "2 things are wrong:\n  1. a is wrong.\n  2. b is wrong."


@pytest.mark.parametrize("faults", ["one", ["one", "two"]])
def test_an_input_error_survives_the_way_between_processes(faults):
    error = InputError(faults)
    again = pickle.loads(pickle.dumps(error))
    assert again.faults == error.faults
    assert str(again) == str(error)


def test_faults_are_raised_together():
    faults = Faults()
    faults.raise_if_any()
    faults.add("one")
    with faults.collecting():
        raise InputError(["two", "three"])
    with faults.collecting():
        pass
    faults.extend(InputError("four"))
    assert len(faults) == 4
    with pytest.raises(InputError) as caught:
        faults.raise_if_any()
    assert caught.value.faults == ("one", "two", "three", "four")


@pytest.mark.parametrize("error", [StudyError("x"), KeyError("x"), KeyboardInterrupt()])
def test_only_input_errors_are_collected(error):
    faults = Faults()
    with pytest.raises(type(error)), faults.collecting():
        raise error
    assert len(faults) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n_latnt", " Did you mean 'n_latent'?"),
        ("N_LATENT", " Did you mean 'n_latent'?"),
        ("dispersio", " Did you mean 'Dispersion'?"),
        ("xyzzy", ""),
        (None, ""),
        (3, ""),
    ],
)
def test_the_nearest_name(name, expected):
    assert nearest(name, ["n_latent", "n_layers", "Dispersion"]) == expected


def test_options_as_text():
    assert one_of([]) == ""
    assert one_of(["a"]) == "'a'"
    assert one_of(["a", "b"]) == "'a' or 'b'"
    assert one_of(iter(["a", None, 3])) == "'a', None or 3"
