"""`training.data_path`: one path, or a list of sources."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fastvideo_core.config.check import training_contradictions
from fastvideo_core.config.problems import validation_problems
from fastvideo_core.config.training import DataSource, TrainingArgs

RUN = {"output_dir": "out", "max_train_steps": 1}


def sources(data_path):
    return TrainingArgs.model_validate({**RUN, "data_path": data_path}).data_sources


def test_each_source_is_named_by_the_key_of_its_path():
    assert sources(None) == {}
    assert sources("a") == {"training.data_path": DataSource(path="a")}
    assert sources([{"path": "a"}]) == {"training.data_path[0].path": DataSource(path="a")}
    first, second = sources([{"path": "a", "weight": 3}, {"path": "b", "loss_weight": 0.5}]).values()
    assert (first.weight, first.loss_weight) == (3, 1)
    assert (second.weight, second.loss_weight) == (None, 0.5)


@pytest.mark.parametrize(
    ("data_path", "key", "says"),
    [
        ([], "", "allowed: non-empty text or a list of at least 1"),
        (3, "", "allowed: non-empty text or a list of at least 1"),
        ({"path": "a"}, "", "found a mapping with path"),
        (["a"], ".0", "found 'a' (text)"),
        ([{"path": "a"}, {"weight": 1}], ".1.path", "missing"),
        ([{"path": "a", "weigth": 1}], ".0.weigth", "did you mean 'weight'?"),
        ([{"path": "a", "weight": 0}], ".0.weight", "allowed: a number > 0"),
        ([{"path": "a", "loss_weight": -1}], ".0.loss_weight", "allowed: a number from 0"),
        ([{"path": "a", "weight": "3"}], ".0.weight", "write it without quotes: 3"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_at_its_place(data_path, key, says):
    data = {**RUN, "data_path": data_path}
    with pytest.raises(ValidationError) as caught:
        TrainingArgs.model_validate(data)
    ((path, problem),) = validation_problems(caught.value, TrainingArgs, data, "training")
    assert ".".join(map(str, path)) == f"data_path{key}"
    assert says in str(problem)


def test_a_source_that_is_not_there_is_told_by_its_place(tmp_path):
    args = TrainingArgs(**RUN, data_path=[{"path": str(tmp_path)}, {"path": "absent"}])
    (found,) = training_contradictions(args, {})
    assert found.path == ("training", "data_path", 1, "path")
    assert "there is no 'absent'" in found.problem.found
