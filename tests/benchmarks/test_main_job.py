import re

import pytest


@pytest.mark.slow
def test_the_main_job_is_timed_in_its_stages(script, capsys):
    options = "--layers [7] --classes 4 --per_class 10 --max_new_tokens 0"
    script("main_job").main(["--options", options])
    printed = capsys.readouterr().out
    found = dict(re.findall(r"\| (\w+) \| ([\d.]+) \| \d+ %", printed))
    assert list(found) == list(script("main_job").STAGES)
    total = float(re.search(r"\| all, from the process's start \| ([\d.]+)", printed)[1])
    assert 0 < sum(map(float, found.values())) <= total + 0.3
    assert float(re.search(r"the job takes ([\d.]+) units", printed)[1]) > 1


@pytest.mark.parametrize("repeats", ["0", "-1", "x"])
def test_repeats_that_make_no_sense(script, capsys, repeats):
    with pytest.raises(SystemExit):
        script("main_job").main(["--repeats", repeats])
    assert "no whole number of 1 or more" in capsys.readouterr().err
