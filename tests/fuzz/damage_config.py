"""Damage to what describes a checkpoint: its config and its tokenizer."""

import json
import random
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from tests.fuzz.damage_weights import written
from tests.fuzz.mutations import NUMBERS, TEXTS, mutate_bytes, mutate_tree, some_value

_HUGE: tuple[Any, ...] = (
    *(0, -1, 10**6, 10**9, 10**12, 2**31, 2**63, 10**30, 1.5),
    *("7", None, True, [], {}),
)
_SIZES = (
    *("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"),
    *("num_attention_heads", "max_position_embeddings", "rotary_pct", "layer_norm_eps"),
)


def damage_config(folder: Path, chance: random.Random) -> str:
    """Changes config.json."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    way = chance.choice(["size", "size", "size", "tree", "tree", "bytes", "code", "type", "tie"])
    match way:
        case "size":
            config[chance.choice(_SIZES)] = chance.choice(_HUGE)
        case "tree":
            config = mutate_tree(config, chance)
        case "code":
            (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
            config["auto_map"] = chance.choice(
                [{"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}, "evil", 7]
            )
            config["model_type"] = chance.choice([config["model_type"], "evil"])
        case "type":
            config["model_type"] = chance.choice(sorted(CONFIG_MAPPING.keys()))
        case "tie":
            settings: tuple[dict[str, Any], ...] = (
                {"tie_word_embeddings": True},
                {"quantization_config": {"quant_method": chance.choice(["gptq", "bitsandbytes"])}},
                {"quantization_config": some_value(chance)},
                {"dtype": chance.choice([*TEXTS[:5], "float16", "int8", 7])},
                {"architectures": [chance.choice(["LlamaForCausalLM", "os.system", "x"])]},
                {"hidden_act": chance.choice(["relu", "no", "os.system"])},
                {
                    "rope_parameters": {
                        "rope_type": chance.choice(["linear", "yarn", "dynamic", "x"])
                    }
                },
            )
            config |= chance.choice(settings)
    content = written(config)
    if way == "bytes":
        content = mutate_bytes(content, chance)
    file.write_bytes(content)
    return way


def damage_tokenizer(folder: Path, chance: random.Random) -> str:
    """Changes one of the tokenizer's files, or adds one."""
    name = chance.choice(["tokenizer.json"] * 4 + ["tokenizer_config.json"] * 3)
    content = json.loads((folder / name).read_text())
    way = chance.choice(["tree", "tree", "bytes", "special", "special"])
    match way:
        case "tree":
            content = mutate_tree(content, chance)
        case "special" if name == "tokenizer.json":
            _special(content, chance)
        case "special":
            content[
                chance.choice(
                    [
                        "tokenizer_class",
                        "auto_map",
                        "eos_token",
                        "chat_template",
                        "model_max_length",
                    ]
                )
            ] = chance.choice(
                [
                    "LlamaTokenizer",
                    "evil.Tokenizer",
                    {"AutoTokenizer": ["evil.T", None]},
                    10**400,
                    -1,
                ]
            )
            (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    damaged = written(content)
    if way == "bytes":
        damaged = mutate_bytes(damaged, chance)
    (folder / name).write_bytes(damaged)
    if chance.random() < 0.1:
        extra = chance.choice(["added_tokens.json", "special_tokens_map.json", "vocab.json"])
        (folder / extra).write_bytes(written(some_value(chance)))
    return f"{name} {way}"


def _special(content: dict[str, Any], chance: random.Random) -> None:
    """Changes what the tokenizer's own code checks least."""
    added = {"id": 0, "content": "x", "special": True, "single_word": False, "lstrip": False}
    added |= {"rstrip": False, "normalized": False}
    match chance.randrange(7):
        case 0:
            content["added_tokens"].append(
                added | {"id": chance.choice([5, 302, 10**6, 2**32, -1])}
            )
        case 1:
            vocabulary = content["model"]["vocab"]
            vocabulary[chance.choice(sorted(vocabulary))] = chance.choice(NUMBERS[:18])
        case 2:
            vocabulary = content["model"]["vocab"]
            for word in chance.sample(sorted(vocabulary), chance.choice([1, 5, len(vocabulary)])):
                del vocabulary[word]
        case 3:
            content["model"]["merges"].insert(
                0, chance.choice([["x", "y"], "x y", "x", [1, 2], []])
            )
        case 4:
            pattern = {"Regex": chance.choice(["(", "(a*)*b", ".", "", "(?=x)", "[" * 500])}
            content["pre_tokenizer"] = {
                "type": "Split",
                "pattern": pattern,
                "behavior": chance.choice(["Isolated", "Removed", "x"]),
                "invert": False,
            }
        case 5:
            content["model"]["type"] = chance.choice(["WordLevel", "Unigram", "WordPiece", "x"])
        case 6:
            content["truncation"] = {
                "direction": "Right",
                "max_length": chance.choice([0, 1, 2**63, 3]),
                "strategy": "LongestFirst",
                "stride": chance.choice([0, 5, 2**40]),
            }
