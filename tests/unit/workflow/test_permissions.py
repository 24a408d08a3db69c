import pytest

from cloche.workflow.permissions import Maximum, excess, policy_maximum, read_permissions
from cloche.workflow.yaml import read


def levels(text: str) -> dict[str, str] | None:
    return read_permissions(read(text, "w.yml"))


def test_what_is_written() -> None:
    assert read_permissions(None) is None
    assert levels("{contents: read, issues: none, id-token: write}") == {
        "contents": "read",
        "id-token": "write",
    }
    assert levels("{}") == {}
    everything = levels("read-all")
    assert everything is not None
    assert set(everything.values()) == {"read"}


@pytest.mark.parametrize(
    ("requested", "allowed", "over"),
    [
        ({"issues": "read"}, {"issues": "write"}, None),
        ({"issues": "write"}, {"issues": "read"}, ("issues: write", "issues: read")),
        ({"attestations": "write", "actions": "read"}, {}, ("actions: read, attestations: write",)),
        ({}, {}, None),
    ],
)
def test_more_than_allowed(
    requested: dict[str, str], allowed: dict[str, str], over: tuple[str, ...] | None
) -> None:
    found = excess(requested, Maximum(allowed))
    assert (found and found[: len(over)]) == over if over else found is None


def test_policies() -> None:
    limited = policy_maximum("LimitedRead", trusted=True)
    assert (limited.level("contents"), limited.level("packages"), limited.level("actions")) == (
        "read",
        "read",
        "none",
    )
    assert policy_maximum("Write", trusted=True).level("id-token") == "write"
    assert policy_maximum("Write", trusted=False).level("id-token") == "none"
    assert policy_maximum("Write", trusted=False).level("issues") == "write"
