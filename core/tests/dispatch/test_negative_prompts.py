"""What a negative prompt stands for, and that one that no family reads is refused."""

from fastvideo_core.config.base import GuidedPipelineConfig, PipelineConfig
from fastvideo_core.contracts.validator import ValidationPrompt, unread_negative_prompts


def test_default_is_the_published_text_and_any_other_stands_for_itself():
    section = GuidedPipelineConfig()
    assert section.negative_prompt == "default"
    assert section.negative_text("published") == "published"
    assert section.negative_text("published", "") == ""
    assert section.negative_text("published", "blurred") == "blurred"
    assert section.negative_text("") == ""  # of a family without one
    own = GuidedPipelineConfig(negative_prompt="grey")
    assert own.negative_text("published") == "grey"
    assert own.negative_text("published", "default") == "published"


def test_a_negative_prompt_that_the_family_does_not_read_is_a_problem_at_its_place():
    prompts = [
        ValidationPrompt("a"),
        ValidationPrompt("b", negative_prompt="", where="prompts.json, data[1]"),
        ValidationPrompt("c", negative_prompt="x"),
    ]
    assert unread_negative_prompts(prompts, GuidedPipelineConfig(), "wan") == []
    problems = unread_negative_prompts(prompts, PipelineConfig(), "mochi")
    assert [problem.where for problem in problems] == ["prompts.json, data[1]", "--negative-prompt"]
    assert problems[0].found == "the family 'mochi' takes no negative prompt"
