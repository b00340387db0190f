"""`compute_baseline_perplexity.py` on a tiny random model: right numbers, resumable, and checked first."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import compute_baseline_perplexity
import setup_rl_data
import support.chat_tokenizers as chat
from openrlhf.vr_cli.baseline_map import BaselineMap
from openrlhf.vr_cli.gold_span import GoldText, tokenize_with_gold
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.provenance import Provenance
from openrlhf.vr_cli.score_log import ScoreLog, score_key
from prompt_utils import PROMPT_TEMPLATE_VERSION, PromptSettings, build_baseline_messages
from support.tiny_models import random_model
from sweep.tiny_architectures import tiny_model

MAP = Path("prompt_to_datapoint_with_baseline_ppl_tiny.pkl")
LOG = Path("prompt_to_datapoint_with_baseline_ppl_tiny.scores.jsonl")


def chapter(index: int, **fields) -> dict:
    return {
        "story_id": "emma",
        "chapter_index": index,
        "story_text": f"once upon {index} times",
        "next_chapter": "The keeper wrote down every name. " * (index + 1),
        "next_chapter_header": f"Chapter {index + 1}",
        "next_chapter_synopsis": f"Name {index} is written down.",
        **fields,
    }


JOKE = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = chat.make_tokenizer(chat.CHATML)
    # so wide that texts differ in perplexity
    random_model("llama", vocab_size=len(tokenizer), initializer_range=0.3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def workdir(tmp_path, monkeypatch, model_folder):
    """A folder with a dataset and its prompts; the first chapter is filtered out."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(model_folder)
    write_dataset(chapter(0), chapter(1), chapter(2), JOKE)
    make_prompts()
    return tmp_path


def write_dataset(*rows: dict):
    Path("story_dataset_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_prompts(*flags: str):
    filters = ["--min_chapter_words", "1", "--min_chapter_index", "1"]
    assert setup_rl_data.main(["--tokenizer_name", "model", *filters, *flags]) == 0


def run(*flags: str) -> int:
    return compute_baseline_perplexity.main(["--model_name", "model", "--nice_model_name", "tiny", *flags])


def plain_mean_nll(datapoint: dict, settings: PromptSettings | None = None) -> float:
    """From one forward of the plain model, full logits, float32."""
    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32)
    text = tokenize_with_gold(chat.make_tokenizer(chat.CHATML), build_baseline_messages(datapoint, settings))
    token_ids = torch.tensor([text.token_ids])
    with torch.no_grad():
        logprobs = model(token_ids).logits[0, :-1].log_softmax(-1)  # (T - 1, V)
    nll = -logprobs.gather(-1, token_ids[0, 1:, None]).squeeze(-1)  # (T - 1,): nll[t - 1] is of token t
    return nll[text.gold_start - 1 :].mean().item()


def test_map_covers_the_prompts_with_the_plain_models_perplexity(workdir, capsys):
    assert run() == 0
    baseline_map = BaselineMap.load(MAP)
    assert list(baseline_map.by_key) == ["Name 1 is written down.", "Name 2 is written down.", "Why?"]
    for datapoint_id, row in (("emma/1", chapter(1)), ("emma/2", chapter(2))):
        datapoint = baseline_map.resolve(datapoint_id, "")
        assert datapoint["baseline_ppl"] == pytest.approx(math.exp(plain_mean_nll(row)), rel=1e-4)
        assert {name: datapoint[name] for name in row} == row
    assert baseline_map.resolve(None, "Why?")["baseline_ppl"] == pytest.approx(math.exp(plain_mean_nll(JOKE)), rel=1e-4)
    assert not LOG.exists()
    out = capsys.readouterr().out
    assert "tokens/s" in out
    assert "baseline perplexity" in out


def test_all_rows_covers_filtered_rows_too(workdir):
    assert run("--all_rows") == 0
    assert len(BaselineMap.load(MAP)) == 4


def test_settings_and_precision_are_recorded(workdir):
    make_prompts("--no_system_role")
    assert run("--no_system_role", "--bf16") == 0
    provenance = BaselineMap.load(MAP).provenance
    assert provenance.model_name == "model"
    assert len(provenance.weights_sha256) == 64
    assert provenance.dtype == "bf16"
    assert provenance.prompt_template_version == PROMPT_TEMPLATE_VERSION
    assert provenance.prompt_settings == PromptSettings(use_system_role=False).to_dict()


def test_without_a_gpu_scoring_is_in_fp32_and_cannot_be_in_tf32(workdir, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--reference_dtype", "tf32")
    assert stop.value.code == 2
    assert "--reference_dtype tf32 needs a GPU; pass fp32" in capsys.readouterr().err
    assert run() == 0
    assert BaselineMap.load(MAP).provenance.dtype == "fp32"


def test_settings_reach_the_scored_text(workdir):
    make_prompts("--no_system_role", "--no_synopsis")
    assert run("--no_system_role", "--no_synopsis") == 0
    settings = PromptSettings(use_system_role=False, include_synopsis=False)
    expected = math.exp(plain_mean_nll(chapter(1), settings))
    assert BaselineMap.load(MAP).resolve("emma/1", "")["baseline_ppl"] == pytest.approx(expected, rel=1e-4)


def test_one_by_one_and_packed_give_the_same_map(workdir):
    assert run("--batch_tokens", "1") == 0
    one_by_one = BaselineMap.load(MAP)
    MAP.unlink()
    assert run("--batch_tokens", "100000") == 0
    for key, datapoint in BaselineMap.load(MAP).by_key.items():
        assert datapoint["baseline_nll_sum"] == pytest.approx(one_by_one.by_key[key]["baseline_nll_sum"], rel=1e-5)


def interrupt_after(num_batches: int, monkeypatch):
    append = ScoreLog.append
    calls = []

    def append_then_interrupt(log, scores):
        append(log, scores)
        calls.append(len(scores))
        if len(calls) == num_batches:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScoreLog, "append", append_then_interrupt)
    return calls


def test_an_interrupted_run_goes_on_where_it_was(workdir, capsys, monkeypatch):
    assert run("--batch_tokens", "1") == 0
    uninterrupted = MAP.read_bytes()
    MAP.unlink()

    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        assert run("--batch_tokens", "1") == 130
    assert f"kept in {LOG}: run the same command again" in capsys.readouterr().err
    assert not MAP.exists()
    with open(LOG, "ab") as file:
        file.write(b'{"key": "cut off by kill -9')

    calls = interrupt_after(99, monkeypatch)
    assert run("--batch_tokens", "1") == 0
    assert calls == [1]  # two of three texts were scored already
    assert MAP.read_bytes() == uninterrupted
    assert not LOG.exists()


def test_scores_of_other_weights_or_precision_are_not_reused(workdir, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert run("--batch_tokens", "1") == 130  # everything is scored, nothing written
    calls = interrupt_after(99, monkeypatch)
    assert run("--batch_tokens", "1", "--bf16") == 0
    assert calls == [1, 1, 1]


def test_what_a_finished_map_holds_is_not_scored_again(workdir, capsys, monkeypatch):
    assert run() == 0
    finished = MAP.read_bytes()
    calls = interrupt_after(99, monkeypatch)
    capsys.readouterr()
    assert run("--batch_tokens", "1") == 0
    assert calls == []
    assert "3 of 3 texts are scored already" in capsys.readouterr().out
    assert MAP.read_bytes() == finished


def test_of_a_finished_map_only_changed_rows_are_scored_again(workdir, monkeypatch):
    assert run() == 0
    changed = {**chapter(2), "next_chapter": "Another end."}
    write_dataset(chapter(0), chapter(1), changed, JOKE)
    make_prompts()
    calls = interrupt_after(99, monkeypatch)
    assert run("--batch_tokens", "1") == 0
    assert calls == [1]
    ppl = BaselineMap.load(MAP).resolve("emma/2", "")["baseline_ppl"]
    assert ppl == pytest.approx(math.exp(plain_mean_nll(changed)), rel=1e-4)


@pytest.mark.parametrize("old", ["other settings", "no map"])
def test_a_map_that_cannot_be_used_is_made_anew(workdir, monkeypatch, old):
    assert run("--bf16") == 0
    if old == "no map":
        MAP.write_bytes(b"torn")
    calls = interrupt_after(99, monkeypatch)
    assert run("--batch_tokens", "1") == 0
    assert calls == [1, 1, 1]
    assert BaselineMap.load(MAP).provenance.dtype == "fp32"


def test_one_question_with_several_answers_goes_through_both_commands(workdir):
    answers = [
        {"messages": [JOKE["messages"][0], {"role": "assistant", "content": text}]} for text in ("Because.", "No.")
    ]
    write_dataset(*answers)
    make_prompts()
    assert run() == 0
    baseline_map = BaselineMap.load(MAP)
    for prompt in Path("rl_data/train.jsonl").read_text().splitlines():
        datapoint = baseline_map.resolve(json.loads(prompt)["datapoint_id"], "")
        row = {"messages": datapoint["messages"]}
        assert datapoint["baseline_ppl"] == pytest.approx(math.exp(plain_mean_nll(row)), rel=1e-4)
    assert len(baseline_map) == 2


def test_one_key_twice_stops_before_the_model_is_looked_at(workdir, capsys):
    write_dataset(chapter(1), chapter(2, next_chapter_synopsis="Name 1 is written down."))
    assert compute_baseline_perplexity.main(["--model_name", "nowhere", "--nice_model_name", "x", "--all_rows"]) == 2
    error = capsys.readouterr().err
    assert "story_dataset_train.jsonl:1 and story_dataset_train.jsonl:2 have the same key" in error
    assert "'Name 1 is written down.'" in error


def error_of(capsys, *flags: str) -> str:
    capsys.readouterr()
    assert run(*flags) == 2
    assert not MAP.exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return line.removeprefix("error: ")


def test_prompts_that_do_not_fit_the_dataset_are_errors(workdir, capsys):
    assert error_of(capsys, "--no_synopsis").startswith("rl_data/train.jsonl:1: the prompt is not what these switches")
    write_dataset(chapter(1), JOKE)
    assert error_of(capsys).startswith("rl_data/train.jsonl:2: datapoint 'emma/2' is not in the dataset")
    Path("rl_data/train.jsonl").write_text('{"prompt": []}\n')
    assert error_of(capsys).startswith("rl_data/train.jsonl:1: field 'datapoint_id' is missing")
    Path("rl_data/train.jsonl").unlink()
    assert "run setup_rl_data.py first, or pass --all_rows" in error_of(capsys)


def test_a_text_beyond_the_models_context_is_an_error(workdir, capsys):
    write_dataset(chapter(1), chapter(2, next_chapter="name " * 3000))
    message = error_of(capsys, "--all_rows")
    assert message.startswith("story_dataset_train.jsonl:2: prompt and gold text have ")
    assert "more than 'model' can take (2,048)" in message


def test_a_model_whose_packs_are_not_its_own_is_refused(workdir, model_folder, capsys):
    """Doge drops keys once there are more than its window: what a pack holds would change what it reads."""
    folder = Path("doge")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tiny_model("doge", vocab_size=len(tokenizer), keep_window_size=64, max_position_embeddings=2048).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    message = error_of(capsys, "--model_name", "doge")
    assert message.startswith("doge (DogeForCausalLM): the log-probs of a sequence of 224 tokens differ by ")


def test_a_missing_model_is_an_error(workdir, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert compute_baseline_perplexity.main(["--model_name", "./nowhere", "--nice_model_name", "x"]) == 2
    assert "error: no tokenizer './nowhere'" in capsys.readouterr().err


def test_a_damaged_log_says_which_file_to_delete(workdir, capsys):
    LOG.write_text('{"key": 1}\n')
    assert error_of(capsys).startswith(f"{LOG}:1: damaged")


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path):
    first, second = Likelihood(nll_sum=1.0, num_tokens=1), Likelihood(nll_sum=2.0, num_tokens=1)
    ScoreLog(tmp_path / "log").append({"a": first})
    with open(tmp_path / "log", "ab") as file:
        file.write(b'{"key": "b", "nll')
    ScoreLog(tmp_path / "log").append({"b": second})
    assert ScoreLog(tmp_path / "log").scores == {"a": first, "b": second}


def test_scores_are_kept_by_all_that_they_depend_on():
    text = GoldText(token_ids=[1, 2, 3], gold_start=1)
    provenance = Provenance(
        model_name="a",
        weights_sha256="0",
        config_sha256="0",
        tokenizer_sha256="0",
        dtype="float32",
        attention="sdpa",
        prompt_template_version="1",
        prompt_settings={"use_system_role": True, "include_synopsis": True},
    )
    others = [replace(provenance, **{name: other(value)}) for name, value in vars(provenance).items()]
    keys = [score_key(text, each) for each in (provenance, *others)]
    keys += [
        score_key(replace(text, token_ids=[1, 2, 4]), provenance),
        score_key(replace(text, gold_start=2), provenance),
    ]
    assert len(set(keys)) == 1 + len(fields(Provenance)) + 2
    same = replace(provenance, prompt_settings=dict(reversed(provenance.prompt_settings.items())))
    assert score_key(text, same) == keys[0]


def other(value):
    """Another value of the same type."""
    return {**value, "include_synopsis": False} if isinstance(value, dict) else f"{value}!"


@pytest.mark.parametrize(("flag", "value"), [("--nice_model_name", "a/b"), ("--batch_tokens", "0")])
def test_impossible_flags_are_refused(workdir, capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        run(flag, value)
    assert stop.value.code == 2
    assert flag in capsys.readouterr().err


OWN_CODE = {
    "configuration_odd.py": """
from transformers import LlamaConfig

class OddConfig(LlamaConfig):
    model_type = "odd"
""",
    "modeling_odd.py": """
from transformers import LlamaForCausalLM
from .configuration_odd import OddConfig

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
""",
}


def test_a_model_with_code_of_its_own_is_loaded_only_when_trusted(workdir, model_folder, capsys):
    """The same weights behind code in the model's folder: the same baseline, and nothing runs without the flag."""
    assert run() == 0
    expected = BaselineMap.load(MAP).by_key["Why?"]["baseline_nll_sum"]
    MAP.unlink()
    shutil.copytree(model_folder, "own")
    for name, code in OWN_CODE.items():
        Path("own", name).write_text(code)
    config = json.loads(Path("own/config.json").read_text())
    own = {"AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
    config |= {"model_type": "odd", "architectures": ["OddForCausalLM"], "auto_map": own}
    Path("own/config.json").write_text(json.dumps(config))
    assert "pass --trust_remote_code" in error_of(capsys, "--model_name", "own")
    assert run("--model_name", "own", "--trust_remote_code") == 0
    assert BaselineMap.load(MAP).by_key["Why?"]["baseline_nll_sum"] == pytest.approx(expected, rel=1e-6)


def test_a_folder_that_cannot_be_written_is_one_line(workdir, capsys):
    Path("file").write_text("")
    assert "file" in error_of(capsys, "--output_dir", "file/inside")
