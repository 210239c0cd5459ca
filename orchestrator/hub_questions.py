"""A question to the hub: asked again while that can help, and then put in the user's words.

No message repeats what the client says, since that may hold a token.
"""

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from jobs.errors import StudyError

TRIES = 5
"""How often a question is asked."""
FIRST_WAIT = 1.0
"""Seconds before it is asked again; doubled each time."""
LONGEST_WAIT = 300.0
"""Most seconds that the hub may make a question wait."""

_T = TypeVar("_T")


class HubUnreachableError(StudyError):
    """The hub cannot be asked now; what is remembered still holds."""


def ask(
    question: Callable[[], _T],
    what: str,
    repository: str,
    pause: Callable[[float], object] = time.sleep,
) -> _T:
    """Returns the answer to a question.

    Args:
        question: Asks the hub, through its client.
        what: What is asked about, for messages.
        repository: The repository that it lies in.
        pause: Waits for so many seconds.

    Raises:
        StudyError: The hub says no: there is no such thing, or it may not be read.
        HubUnreachableError: The hub gives no answer, or asks for patience too often.
    """
    from httpx import InvalidURL, LocalProtocolError, RequestError, UnsupportedProtocol
    from huggingface_hub import errors

    for attempt in range(1, TRIES + 1):
        wait = FIRST_WAIT * 2 ** (attempt - 1)
        try:
            return question()
        except errors.OfflineModeIsEnabled:
            raise HubUnreachableError(
                f"cannot ask the hub about {what}: HF_HUB_OFFLINE is set",
                "unset it until everything was asked once",
            ) from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status != 429 and status < 500:
                raise _refusal(error, status, what, repository) from None
            failure = f"the answer is {status}"
            wait = _wanted_wait(error.response.headers) or wait
        except (LocalProtocolError, UnicodeEncodeError):
            raise StudyError(
                "HF_TOKEN, or the token that you logged in with, has characters that no token has",
                "set it again, without quotes and line ends",
            ) from None
        except (InvalidURL, UnsupportedProtocol):
            raise HubUnreachableError(
                "HF_ENDPOINT is no address of a hub", "unset it, or give it as in https://…"
            ) from None
        except RequestError as error:
            failure = type(error).__name__
        except errors.HFValidationError:
            raise StudyError(
                f"'{repository}' is no name of a repository", "give it as in EleutherAI/pythia-70m"
            ) from None
        except (ValueError, KeyError, TypeError):
            failure = "the answer is not that of a hub"
        if attempt < TRIES:
            pause(min(wait, LONGEST_WAIT))
    raise HubUnreachableError(
        f"cannot ask the hub about {what}: {failure}, {TRIES} times",
        "check the network and HF_ENDPOINT; what was asked before is remembered",
    )


def check_token(repository: str, gated: bool) -> None:
    """Sees to it that there is a token for a repository that is gated.

    Raises:
        StudyError: There is none.
    """
    if not gated:
        return
    from huggingface_hub import get_token

    if get_token() is None:
        raise _gated(repository)


def _refusal(error: Exception, status: int, what: str, repository: str) -> StudyError:
    """Returns what an answer means that will not change."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _gated(repository)
    if isinstance(error, errors.RepositoryNotFoundError):
        return StudyError(
            f"the hub knows no {what}, or it is private",
            "check the name; if it is private, set HF_TOKEN to a token that may read it",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return StudyError(f"the hub knows no {what}", "correct the revision")
    if status in {401, 403}:
        return StudyError(
            f"the hub refuses your token for {what} ({status})",
            "set HF_TOKEN to a valid token that may read it, or unset it",
        )
    return StudyError(f"the hub refuses to tell about {what} ({status})", "check the name")


def _gated(repository: str) -> StudyError:
    return StudyError(
        f"{repository} is gated: the hub serves it only to those who accepted its licence",
        "accept it on the model's page and set HF_TOKEN to a token of that account",
    )


def _wanted_wait(headers: Any) -> float | None:
    """Returns the seconds for which the hub asks to be left alone, where it says so."""
    if str(headers.get("Retry-After", "")).isdecimal():
        return float(headers["Retry-After"])
    match = re.search(r";\s*t=(\d+)", str(headers.get("RateLimit", "")))
    return None if match is None else float(match[1])
