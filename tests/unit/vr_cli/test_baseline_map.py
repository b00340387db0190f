"""The baseline map on disk: what it holds, whom it answers, what it refuses to read, and its provenance."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from openrlhf.vr_cli.baseline_map import (
    PROVENANCE_KEY,
    BaselineMap,
    baseline_likelihood,
    load_plain_pickle,
    with_baseline,
)
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.provenance import Provenance, weights_sha256

CHAPTER = {
    "story_text": "Once.",
    "next_chapter": "Then.",
    "next_chapter_header": "2",
    "next_chapter_synopsis": "They meet.",
}
JOKE = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
PROVENANCE = Provenance(
    model_name="models/a",
    weights_sha256="0" * 64,
    dtype="float32",
    attention="sdpa",
    prompt_template_version="1",
    prompt_settings={"use_system_role": True, "include_synopsis": True},
)
BASELINE = Likelihood(nll_sum=3 * math.log(4), num_tokens=3)


def small_map() -> BaselineMap:
    by_key = {
        "They meet.": with_baseline(CHAPTER, "emma/1", BASELINE),
        "Why?": with_baseline(JOKE, "row-0", Likelihood(nll_sum=2.0, num_tokens=4)),
    }
    return BaselineMap(by_key, PROVENANCE)


def test_file_is_a_plain_dict_from_synopsis_to_datapoint(tmp_path):
    small_map().save(tmp_path / "map.pkl")
    content = load_plain_pickle(tmp_path / "map.pkl")
    assert content.pop(PROVENANCE_KEY)["model_name"] == "models/a"
    assert list(content) == ["They meet.", "Why?"]
    datapoint = content["They meet."]
    assert datapoint["baseline_ppl"] == pytest.approx(4.0)
    assert {name: datapoint[name] for name in CHAPTER} == CHAPTER
    assert (datapoint["datapoint_id"], datapoint["baseline_num_tokens"]) == ("emma/1", 3)


def test_saved_map_loads_equal(tmp_path):
    small_map().save(tmp_path / "map.pkl")
    loaded = BaselineMap.load(tmp_path / "map.pkl")
    assert loaded.by_key == small_map().by_key
    assert loaded.provenance == PROVENANCE
    assert baseline_likelihood(loaded.resolve("emma/1", "")) == BASELINE


def test_prompts_resolve_by_id_else_by_their_text():
    baseline_map = small_map()
    prompt = "<|im_start|>user\n### Next Chapter Synopsis: ###\nThey meet.\n\n### Next Chapter Header: ###\n2<|im_end|>"
    assert baseline_map.resolve("row-0", prompt)["datapoint_id"] == "row-0"  # the id wins
    assert baseline_map.resolve(None, prompt)["datapoint_id"] == "emma/1"
    assert baseline_map.resolve(None, "Why?\n")["datapoint_id"] == "row-0"


@pytest.mark.parametrize(
    ("datapoint_id", "prompt", "complaint"),
    [
        ("emma/9", "Why?", "'emma/9' is not in .*map.pkl"),
        (None, "### Next Chapter Synopsis: ###\nThey part.", "whose synopsis begins 'They part.', is not in .*map.pkl"),
        (None, "How?", "whose text begins 'How.', is not in .*map.pkl"),
        (None, PROVENANCE_KEY, "is not in .*map.pkl"),
    ],
)
def test_misses_name_what_is_missing_and_where(tmp_path, datapoint_id, prompt, complaint):
    small_map().save(tmp_path / "map.pkl")
    loaded = BaselineMap.load(tmp_path / "map.pkl")
    with pytest.raises(ValueError, match=complaint) as error:
        loaded.resolve(datapoint_id, prompt)
    assert "setup_rl_data.py" in str(error.value)


def test_two_datapoints_with_one_id_are_an_error():
    datapoint = with_baseline(CHAPTER, "emma/1", BASELINE)
    with pytest.raises(ValueError, match="'emma/1'"):
        BaselineMap({"a": datapoint, "b": dict(datapoint)}, PROVENANCE)


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "map.pkl"
    file.write_bytes(pickle.dumps({"a": Touch(str(victim))}))
    with pytest.raises(ValueError, match=r"map\.pkl is not a usable baseline map: it refers to pathlib"):
        BaselineMap.load(file)
    assert not victim.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_any_class_is_refused_at_any_protocol(tmp_path, protocol):
    file = tmp_path / "map.pkl"
    file.write_bytes(pickle.dumps({"a": Path("x")}, protocol=protocol))
    with pytest.raises(ValueError, match="only plain dicts"):
        load_plain_pickle(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable pickle"),
        (b"{}", "not a readable pickle"),
        (pickle.dumps({"a": {}})[:-3], "not a readable pickle"),
        (pickle.dumps([1]), "computed with"),
        (pickle.dumps({"a": {}}), "computed with"),
        (pickle.dumps({PROVENANCE_KEY: {"dtype": "float32"}}), "incomplete provenance"),
        (
            pickle.dumps({PROVENANCE_KEY: PROVENANCE.to_dict(), "a": {"baseline_ppl": 3.0}}),
            "without a complete baseline",
        ),
        (pickle.dumps({PROVENANCE_KEY: PROVENANCE.to_dict(), "a": None}), "without a complete baseline"),
    ],
)
def test_what_is_no_map_is_refused_with_its_name(tmp_path, content, complaint):
    file = tmp_path / "map.pkl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"map\.pkl is not a usable .*{complaint}.*compute_baseline_perplexity"):
        BaselineMap.load(file)


def test_a_missing_map_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"no baseline map .*none\.pkl.*compute_baseline_perplexity"):
        BaselineMap.load(tmp_path / "none.pkl")


def test_same_weights_under_another_name_are_the_same_model():
    small_map().check_provenance(replace(PROVENANCE, model_name="elsewhere/b"))


def test_every_difference_in_provenance_is_listed():
    other = Provenance(
        model_name="models/b",
        weights_sha256="1" * 64,
        dtype="bfloat16",
        attention="flex_attention",
        prompt_template_version="2",
        prompt_settings={"use_system_role": False, "include_synopsis": True},
    )
    with pytest.raises(ValueError, match="computed differently") as error:
        small_map().check_provenance(other)
    for part in (
        "model weights: models/a (sha256 000000000000), here models/b (sha256 111111111111)",
        "dtype: float32, here bfloat16",
        "attention (--flash_attn): sdpa, here flex_attention",
        "prompt templates: version 1, here 2",
        "use_system_role: True, here False",
    ):
        assert part in str(error.value)
    assert "include_synopsis" not in str(error.value)


def test_weights_hash_sees_content_and_not_names(tmp_path):
    for name, content in {"a": b"12345", "copy": b"12345", "tuned": b"12346"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "config.json").write_text(name)
    hashes = {name: weights_sha256(str(tmp_path / name)) for name in ("a", "copy", "tuned")}
    assert hashes["a"] == hashes["copy"]
    assert hashes["a"] != hashes["tuned"]


def test_weights_hash_covers_every_shard(tmp_path):
    weight_map = {"x": "model-2.safetensors", "y": "model-1.safetensors", "z": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "model-1.safetensors").write_bytes(b"1")
    (tmp_path / "model-2.safetensors").write_bytes(b"2")
    before = weights_sha256(str(tmp_path))
    (tmp_path / "model-2.safetensors").write_bytes(b"3")
    assert weights_sha256(str(tmp_path)) != before


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no weights: expected model\.safetensors"):
        weights_sha256(str(tmp_path))
