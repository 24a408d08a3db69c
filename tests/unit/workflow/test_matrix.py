"""The legs of a matrix, against GitHub's documentation and a naive model."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.workflow.matrix import MatrixError, display_name, expand, leg_name


def test_the_documentation_s_example_of_include() -> None:
    legs = expand(
        {
            "fruit": ["apple", "pear"],
            "animal": ["cat", "dog"],
            "include": [
                {"color": "green"},
                {"color": "pink", "animal": "cat"},
                {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        }
    )
    assert legs == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_include_alone_gives_one_leg_each() -> None:
    assert expand({"include": [{"site": "a", "x": 1.0}, {"site": "b"}]}) == [
        {"site": "a", "x": 1.0},
        {"site": "b"},
    ]


def test_exclude_matches_in_part_and_compares_as_the_language_does() -> None:
    legs = expand(
        {"os": ["Linux", "mac"], "v": [1.0, 2.0], "exclude": [{"os": "linux", "v": "1"}, {"os": "mac"}]}
    )
    assert legs == [{"os": "Linux", "v": 2.0}]


def test_everything_may_be_excluded() -> None:
    assert expand({"os": ["a"], "exclude": [{"os": "a"}]}) == []


def test_nested_values_are_compared_leaf_by_leaf() -> None:
    nodes = [{"v": 1.0, "env": ["A"]}, {"v": 2.0, "env": ["B"]}]
    legs = expand(
        {"node": nodes, "exclude": [{"node": {"env": ["a"]}}], "include": [{"node": {"v": 2.0}, "x": "y"}]}
    )
    assert legs == [{"node": nodes[1], "x": "y"}]
    assert leg_name(legs[0]) == "2, B"


def test_names_show_what_github_shows() -> None:
    legs = expand(
        {
            "python": ["3.11", 3.1],
            "os": ["ubuntu-latest"],
            "fast": [True],
            "none": [None, ""],
            "include": [{"python": "3.11", "extra": "hidden"}, {"python": "3.13", "extra": "shown"}],
        }
    )
    names = [leg_name(leg) for leg in legs]
    assert names == [
        "3.11, ubuntu-latest, true",
        "3.11, ubuntu-latest, true",
        "3.1, ubuntu-latest, true",
        "3.1, ubuntu-latest, true",
        "3.13, shown",
    ]
    assert legs[0]["extra"] == "hidden"


def test_a_job_s_name_is_cut_where_github_cuts_it() -> None:
    assert display_name("build", {"os": "linux"}) == "build (linux)"
    assert display_name("build", {"os": None}) == "build"
    long = display_name("build", {"os": "x" * 200})
    assert len(long) == 100
    assert long.endswith("...")


@pytest.mark.parametrize(
    ("matrix", "message", "path"),
    [
        ({}, "Matrix must define at least one vector", ()),
        ({"include": []}, "Matrix must define at least one vector", ()),
        ({"os": []}, "Matrix vector 'os' does not contain any values", ("os",)),
        ({"os": "linux"}, "Unexpected value 'linux'", ("os",)),
        ({"os": {"a": "b"}}, "A mapping was not expected", ("os",)),
        ({"os": ["a"], "OS": ["b"]}, "'OS' is already defined", ("OS",)),
        ({"os": ["a"], "exclude": ["b"]}, "Unexpected value 'b'", ("exclude", 0)),
        ({"os": ["a"], "exclude": [["b"]]}, "A sequence was not expected", ("exclude", 0)),
        (
            {"os": ["a"], "include": [{"x": "y"}], "exclude": [{"os": "a"}, {"so": "a"}]},
            "Matrix exclude key 'so' does not match any key within the matrix",
            ("exclude", 1, "so"),
        ),
        ({"os": ["a"], "exclude": [{}]}, "Matrix exclude filter must not be empty", ("exclude", 0)),
        (
            {"os": ["a"], "exclude": [{"so": "a"}]},
            "Matrix exclude key 'so' does not match any key within the matrix",
            ("exclude", 0, "so"),
        ),
        ({"include": [{}]}, "Matrix include mapping does not contain any values", ("include", 0)),
    ],
)
def test_wrong_shapes_are_refused_in_github_s_words(
    matrix: dict[str, object], message: str, path: tuple[str | int, ...]
) -> None:
    with pytest.raises(MatrixError) as caught:
        expand(matrix)
    assert caught.value.problems[0].message == message
    assert caught.value.problems[0].path == path


def test_every_problem_is_found_with_its_place() -> None:
    with pytest.raises(MatrixError) as caught:
        expand({"os": [], "exclude": ["x", {"so": "a", "v": 1.0}], "v": 5.0})
    assert [problem.path for problem in caught.value.problems] == [
        ("os",),
        ("v",),
        ("exclude", 0),
        ("exclude", 1, "so"),
    ]


def test_256_legs_are_the_most() -> None:
    assert len(expand({"a": list(range(16)), "b": list(range(16))})) == 256
    assert len(expand({"a": list(range(17)), "b": list(range(16)), "exclude": [{"a": 3.0}]})) == 256
    for matrix, legs in (
        ({"a": list(range(1000)), "b": list(range(1000))}, 1_000_000),
        ({"a": list(range(1000)), "b": list(range(1000)), "exclude": [{"a": 1.0}]}, 999_000),
        ({"a": list(range(16)), "b": list(range(16)), "include": [{"a": "new"}]}, 257),
        ({"include": [{"a": str(number)} for number in range(300)]}, 300),
    ):
        with pytest.raises(MatrixError) as caught:
            expand(matrix, job="build")
        start = f"Strategy for job 'build' produced {legs} configurations"
        assert caught.value.message == f"{start} which exceeds the maximum of 256 configurations"


def test_the_size_is_known_without_building() -> None:
    digits = [float(digit) for digit in range(10)]
    vectors = dict.fromkeys("abcdefghij", digits)
    with pytest.raises(MatrixError, match="produced 9999999999 configurations"):
        expand({**vectors, "exclude": [dict.fromkeys(vectors, 1.0)]})
    all_but_one = [{letter: digit} for letter in vectors for digit in digits[1:]]
    assert expand({**vectors, "exclude": all_but_one}) == [dict.fromkeys(vectors, 0.0)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "matrix",
    [
        {f"v{number}": [1.0] for number in range(1000)},
        {"a": [float(n) for n in range(1000)], "exclude": [{"a": float(n)} for n in range(1000)]},
        {
            **{f"v{number}": [float(n) for n in range(10)] for number in range(10)},
            "exclude": [
                {f"v{n % 10}": float(n // 10), f"v{(n * 7) % 10}": float(n % 10)} for n in range(100)
            ],
        },
    ],
)
def test_what_takes_too_long_to_count_is_refused(matrix: dict[str, object]) -> None:
    with pytest.raises(MatrixError, match=r"too complex|produced"):
        expand(matrix)


_VALUES = st.sampled_from(["a", "b", "c"])
_VECTORS = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), st.lists(_VALUES, min_size=1, max_size=3, unique=True)
)
_ITEMS = st.lists(
    st.dictionaries(st.sampled_from(["x", "y", "z", "more", "most"]), _VALUES, min_size=1), max_size=4
)


def naive(
    vectors: dict[str, list[str]], include: list[dict[str, str]], exclude: list[dict[str, str]]
) -> list[dict[str, str]]:
    """The documentation's sentences, one by one."""
    combinations = [
        dict(zip(vectors, values, strict=True)) for values in itertools.product(*vectors.values())
    ]
    kept = [
        one for one in combinations if vectors and not any(one.items() >= item.items() for item in exclude)
    ]
    legs = [dict(one) for one in kept]
    created = []
    for item in include:
        taken = False
        for original, leg in zip(kept, legs, strict=True):
            if all(original.get(key, value) == value for key, value in item.items()):
                leg.update(item)
                taken = True
        if not taken:
            created.append(item)
    return legs + created


@settings(max_examples=2 * settings().max_examples)
@given(_VECTORS, _ITEMS, _ITEMS)
def test_as_the_documentation_says(
    vectors: dict[str, list[str]], include: list[dict[str, str]], exclude: list[dict[str, str]]
) -> None:
    exclude = [item for item in exclude if item.keys() <= vectors.keys()]
    if vectors or include:
        assert expand({**vectors, "include": include, "exclude": exclude}) == naive(vectors, include, exclude)
