"""The examples of docs/format.md run as they stand."""

import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

DOC = Path(__file__).parents[2] / "docs" / "format.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples_for_the_three_ways():
    assert len(EXAMPLES) == 3
    for example, word in zip(EXAMPLES, ("open_store", "h5py", "xarray"), strict=True):
        assert word in example


@pytest.mark.parametrize("number", range(3))
def test_an_example_runs(number, producer, tmp_path, monkeypatch):
    if number == 2:
        pytest.importorskip("xarray")
        pytest.importorskip("h5netcdf")
    (tmp_path / "activations").mkdir()
    producer.produce(str(tmp_path / "activations" / "tiny-sample.h5"), n=100)
    monkeypatch.chdir(tmp_path)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray's own, of versions to come
        exec(EXAMPLES[number], names)
    expected = producer.inputs(n=100)[3]["resid_post"][:, 2].astype("float16")
    assert (names["vectors"][:] == expected).all()
    if number == 2:
        assert names["by_letter"].sizes["label"] == 4


@pytest.mark.parametrize("keep_shards", [False, True])
def test_the_r_example_runs(keep_shards, producer, tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    found = subprocess.run(["Rscript", "-e", "library(rhdf5)"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("R's package rhdf5 is not installed")
    (example,) = re.findall(r"```r\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "activations").mkdir()
    path = tmp_path / "activations" / "tiny-sample.h5"
    producer.produce(str(path), n=100, keep_shards=keep_shards)
    script = tmp_path / "example.R"
    script.write_text(
        f"{example}\nwrite.table(t(vectors), 'vectors.txt', row.names = F, col.names = F)\n"
        "writeLines(labels, 'labels.txt', useBytes = TRUE)\n"
    )
    command = ["Rscript", "--vanilla", str(script)]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "[1]  12 100\n"
    expected = producer.inputs(n=100)[3]["resid_post"][:, 2].astype("float16")
    assert (np.loadtxt(tmp_path / "vectors.txt").astype("float16") == expected).all()
    labels = (tmp_path / "labels.txt").read_text(encoding="utf-8").split()
    assert labels == ["A", "B", "C", "Ü"] * 25


def test_tables_name_what_a_store_holds(producer):
    text = DOC.read_text(encoding="utf-8")
    spec, *_ = producer.inputs(n=4)
    for variable in spec.captured:
        assert f"`{variable.name}`" in text
