"""The TURBOPOOL_* variables."""

from __future__ import annotations

import re

import pytest

from turbopool.config.environment import VARIABLES, read_environment


def test_variables_are_folded_into_options() -> None:
    found = read_environment(
        {
            "TURBOPOOL_MAX_CONNS_PER_HOST": "20",
            "TURBOPOOL_IDLE_TIMEOUT": "1.5",
            "TURBOPOOL_CONNECT_TIMEOUT": " 2 ",
            "TURBOPOOL_REQUEST_TIMEOUT": "0",
            "TURBOPOOL_CONNECTION_MAX_AGE": "None",
            "TURBOPOOL_OTHER": "x",
        }
    )

    assert found == {
        "max_conns_per_host": 20,
        "idle_timeout": 1.5,
        "connect_timeout": 2.0,
        "request_timeout": 0.0,
        "connection_lifetime": None,
    }


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_environment(dict.fromkeys(VARIABLES.values(), " ")) == {}


@pytest.mark.parametrize("option", VARIABLES)
@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf", "1,5"])
def test_nonsense_names_variable_and_option(option: str, text: str) -> None:
    variable = VARIABLES[option]

    with pytest.raises(ValueError, match=f"{variable}={text!r}.*{re.escape(option)}"):
        read_environment({variable: text})


def test_a_count_is_whole() -> None:
    with pytest.raises(ValueError, match="a whole number"):
        read_environment({"TURBOPOOL_MAX_CONNS_PER_HOST": "2.5"})
