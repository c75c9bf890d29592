import re


def test_a_small_sweep_is_timed_in_its_parts(script, capsys):
    options = ["--samples", "300", "--hidden", "32", "--layers", "2", "--classes", "4"]
    script("full_sweep").main(options)
    printed = capsys.readouterr().out
    assert "all converged: True" in printed
    accuracy = float(re.search(r"held-out accuracy ([\d.]+)", printed)[1])
    assert 0.25 < accuracy <= 1
    assert float(re.search(r"same answers in fold 0: ([\d.]+)", printed)[1]) > 0.95
    parts = dict(re.findall(r"\| (reading|the rest|all) \| ([\d.]+)", printed))
    assert abs(float(parts["reading"]) + float(parts["the rest"]) - float(parts["all"])) < 0.02
