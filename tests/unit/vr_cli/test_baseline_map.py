"""The baseline map on disk: what it holds, whom it answers, what it refuses to read, and its provenance."""

from __future__ import annotations

import json
import math
import pickle
import random
from dataclasses import replace
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import MAX_DEPTH
from openrlhf.vr_cli.baseline_map import PROVENANCE_KEY, BaselineMap, baseline_likelihood, with_baseline
from openrlhf.vr_cli.datapoints import gold_text
from openrlhf.vr_cli.dataset import read_rows
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.plain_pickle import load_plain_pickle
from openrlhf.vr_cli.provenance import Provenance, config_sha256, weights_sha256
from prompt_utils import build_planned_messages

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
    config_sha256="0" * 64,
    tokenizer_sha256="0" * 64,
    dtype="fp32",
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


def test_whatever_a_dataset_row_may_hold_survives_in_the_map(tmp_path):
    deep = json.dumps({**CHAPTER, "notes": [2**63 - 1, -(2**63), -0.0, 1e-320], "\u2028": None}).rstrip("}")
    deep += ', "deep": ' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    (tmp_path / "rows.jsonl").write_text(deep)
    (row,) = read_rows(tmp_path / "rows.jsonl")
    BaselineMap({"They meet.": with_baseline(row.datapoint, "a", BASELINE)}, PROVENANCE).save(tmp_path / "map.pkl")
    assert BaselineMap.load(tmp_path / "map.pkl").resolve("a", "").items() >= row.datapoint.items()


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
    with pytest.raises(UserError, match=complaint) as error:
        loaded.resolve(datapoint_id, prompt)
    assert "setup_rl_data.py" in str(error.value)


def test_a_prompt_without_id_that_several_datapoints_share_is_not_guessed():
    answers = [{"messages": [JOKE["messages"][0], {"role": "assistant", "content": text}]} for text in "ab"]
    by_id = {f"row-{i}": with_baseline(row, f"row-{i}", BASELINE) for i, row in enumerate(answers)}
    baseline_map = BaselineMap(by_id, PROVENANCE)
    assert baseline_map.resolve("row-1", "Why?")["messages"][-1]["content"] == "b"
    with pytest.raises(UserError, match=r"'Why\?', belongs to several datapoints .*setup_rl_data"):
        baseline_map.resolve(None, "Why?")


def test_two_datapoints_with_one_id_are_an_error():
    datapoint = with_baseline(CHAPTER, "emma/1", BASELINE)
    with pytest.raises(UserError, match="'emma/1'"):
        BaselineMap({"a": datapoint, "b": dict(datapoint)}, PROVENANCE)


def write(path: Path, entry: dict, **provenance) -> Path:
    """A map of one entry, whatever is in it."""
    path.write_bytes(pickle.dumps({PROVENANCE_KEY: {**PROVENANCE.to_dict(), **provenance}, "They meet.": entry}))
    return path


ENTRY = with_baseline(CHAPTER, "emma/1", BASELINE)


def without(field: str) -> dict:
    return {name: value for name, value in ENTRY.items() if name != field}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable pickle"),
        (b"{}", "the byte b'{', which is no instruction"),
        (pickle.dumps({"a": {}})[:-3], "not a readable pickle"),
        (pickle.dumps([1]), "computed with"),
        (pickle.dumps({"a": {}}), "computed with"),
        (pickle.dumps({PROVENANCE_KEY: {"dtype": "float32"}}), "incomplete provenance"),
        (pickle.dumps({PROVENANCE_KEY: None}), "incomplete provenance"),
        (pickle.dumps({"a": Path("x")}), "only plain dicts, lists, strings and numbers are read"),
    ],
)
def test_what_is_no_map_is_refused_with_its_name(tmp_path, content, complaint):
    file = tmp_path / "map.pkl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"map\.pkl is not a usable .*{complaint}.*compute_baseline_perplexity"):
        BaselineMap.load(file)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (None, "expected a JSON object, got null"),
        ([], "expected a JSON object, got a list"),
        (without("story_text"), "field 'story_text' is missing"),
        (without("datapoint_id"), "its datapoint_id is None, no string"),
        ({**ENTRY, "datapoint_id": ["emma/1"]}, r"its datapoint_id is \['emma/1'\], no string"),
        ({**ENTRY, "datapoint_id": ""}, "its datapoint_id is '', no string"),
        (without("baseline_nll_sum"), "its baseline_nll_sum is None, no finite number"),
        (without("baseline_ppl"), "its baseline_ppl is None, no finite number"),
        ({**ENTRY, "baseline_nll_sum": "4"}, "its baseline_nll_sum is '4', no finite number"),
        ({**ENTRY, "baseline_nll_sum": 10**400}, "an integer of more than 64 bits|a LONG4 instruction"),
        ({**ENTRY, "baseline_nll_sum": math.nan}, "it holds the number nan"),
        ({**ENTRY, "baseline_nll_sum": math.inf}, "it holds the number inf"),
        ({**ENTRY, "baseline_nll_sum": -1e9}, "its baseline_nll_sum is -1000000000.0 over 3 tokens, which no model"),
        ({**ENTRY, "baseline_nll_sum": 1e9}, "its baseline_nll_sum is 1000000000.0 over 3 tokens, which no model"),
        (without("baseline_num_tokens"), "its baseline_num_tokens is None, no number of tokens"),
        ({**ENTRY, "baseline_num_tokens": 1.5}, "its baseline_num_tokens is 1.5, no number of tokens"),
        ({**ENTRY, "baseline_num_tokens": True}, "its baseline_num_tokens is True, no number of tokens"),
        ({**ENTRY, "baseline_num_tokens": 0}, "its baseline_num_tokens is 0, no number of tokens"),
        ({**ENTRY, "baseline_ppl": 5.0}, "its baseline_ppl is 5.0, but its nll_sum and num_tokens give 4"),
    ],
)
def test_an_impossible_entry_is_refused_in_one_sentence(tmp_path, entry, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        BaselineMap.load(write(tmp_path / "map.pkl", entry))
    assert "map.pkl is not a usable baseline map: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("provenance", "complaint"),
    [
        ({"dtype": 32}, "a provenance whose dtype is 32, no string"),
        ({"weights_sha256": None}, "a provenance whose weights_sha256 is None, no string"),
        ({"prompt_settings": []}, r"a provenance whose prompt_settings are \[\]"),
        ({"prompt_settings": {"use_system_role": "yes"}}, "prompt_settings are .*no switches that are on or off"),
        ({"colour": "red"}, "incomplete provenance .*colour"),
    ],
)
def test_an_impossible_provenance_is_refused_in_one_sentence(tmp_path, provenance, complaint):
    with pytest.raises(UserError, match=complaint):
        BaselineMap.load(write(tmp_path / "map.pkl", ENTRY, **provenance))


NUMBERS: list[object] = [True, 0, -1, 1.5, 10**18, -1e300]
JUNK: list[object] = [*NUMBERS, None, "", "x", "\U0001f44d", [], ["x"], [[[]]], {}, {"x": 1}, {"role": "user"}]


def spoilt(value: object, rng: random.Random) -> object:
    """A copy in which one thing is replaced by junk, left out or added, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        changed = {**value, name: spoilt(value[name], rng)}
        if rng.random() < 0.2:
            changed.pop(name)
        return changed if rng.random() < 0.9 else {**changed, "more": rng.choice(JUNK)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        return [*value[:index], spoilt(value[index], rng), *value[index + 1 :]]
    return rng.choice(JUNK)


def test_spoilt_maps_are_refused_in_one_sentence_or_usable(tmp_path):
    rng, num_usable, refusals = random.Random(0), 0, []
    whole = {PROVENANCE_KEY: PROVENANCE.to_dict(), **small_map().by_key}
    for _ in range(1_500):
        (tmp_path / "map.pkl").write_bytes(pickle.dumps(spoilt(whole, rng)))
        try:
            loaded = BaselineMap.load(tmp_path / "map.pkl")
        except UserError as error:
            refusals.append(str(error))
            continue
        num_usable += 1
        for datapoint in loaded.by_key.values():  # what training asks of each
            assert loaded.resolve(datapoint["datapoint_id"], "") is datapoint
            assert baseline_likelihood(datapoint).perplexity > 0
            assert build_planned_messages(datapoint, "A plan.")[-1]["content"] == gold_text(datapoint)
    assert num_usable > 30
    assert not any("\n" in refusal for refusal in refusals)


def test_a_missing_map_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no baseline map .*none\.pkl.*compute_baseline_perplexity"):
        BaselineMap.load(tmp_path / "none.pkl")


def test_same_weights_under_another_name_are_the_same_model():
    small_map().check_provenance(replace(PROVENANCE, model_name="elsewhere/b"))


def test_every_difference_in_provenance_is_listed():
    other = Provenance(
        model_name="models/b",
        weights_sha256="1" * 64,
        config_sha256="1" * 64,
        tokenizer_sha256="1" * 64,
        dtype="bf16",
        attention="flex_attention",
        prompt_template_version="2",
        prompt_settings={"use_system_role": False, "include_synopsis": True},
    )
    with pytest.raises(UserError, match="computed differently") as error:
        small_map().check_provenance(other)
    for part in (
        "model weights: models/a (sha256 000000000000), here models/b (sha256 111111111111)",
        "model settings (sha256 of config.json): 0000000000000000, here 1111111111111111",
        "tokenizer or chat template (sha256): 0000000000000000, here 1111111111111111",
        "precision (--reference_dtype): fp32, here bf16",
        "attention (--flash_attn): sdpa, here flex_attention",
        "prompt templates, version: 1, here 2",
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


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}', "[" * 100_000])
def test_a_broken_index_of_shards_is_named(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json is no index of weight files"):
        weights_sha256(str(tmp_path))


def test_config_hash_sees_what_changes_the_model_and_not_who_wrote_the_file(tmp_path):
    config = {"rope_theta": 1e4, "rope_parameters": {"factor": 1.0}, "transformers_version": "5.1"}

    def hash_of(name: str, **changes) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **changes}))
        return config_sha256(str(tmp_path / name))

    same = hash_of("a")
    assert hash_of("b", transformers_version="5.2", dtype="bfloat16", use_cache=False, _name_or_path="x") == same
    assert hash_of("c", rope_theta=1e6) != same
    assert hash_of("d", rope_parameters={"factor": 4.0}) != same
    (tmp_path / "d" / "config.json").unlink()
    with pytest.raises(UserError, match=r"d/config\.json is no usable model configuration"):
        config_sha256(str(tmp_path / "d"))


def test_weights_hash_covers_every_shard(tmp_path):
    weight_map = {"x": "model-2.safetensors", "y": "model-1.safetensors", "z": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "model-1.safetensors").write_bytes(b"1")
    (tmp_path / "model-2.safetensors").write_bytes(b"2")
    before = weights_sha256(str(tmp_path))
    (tmp_path / "model-2.safetensors").write_bytes(b"3")
    assert weights_sha256(str(tmp_path)) != before


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no weights: expected model\.safetensors"):
        weights_sha256(str(tmp_path))
