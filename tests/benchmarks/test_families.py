import pytest


@pytest.fixture
def families(script):
    return script("families")


@pytest.mark.slow
def test_a_row_holds_small_differences(families, tmp_path):
    cells = families.row("qwen2-vl", tmp_path / "model")
    assert len(cells) == len(families.COLUMNS)
    found = dict(zip(families.COLUMNS, cells, strict=True))
    assert found["answers"] == "same"
    assert found["names by"] == "one pass"
    assert (
        max(float(found[name]) for name in ("vectors", "`projector`", "`vision`", "names", "NF4"))
        < 1e-4
    )


def test_the_page_holds_a_row_of_every_family(families):
    table = families.PAGE.read_text(encoding="utf-8")
    for name in families.ALL:
        assert f"\n| {name} | " in table
