"""URLs of object stores. One that is accepted names a bucket, known options and no secret."""

import os
import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from jobs.errors import StoreError

_OPTIONS = {
    "s3": frozenset({"endpoint_override", "scheme", "region"}),
    "gs": frozenset({"endpoint_override", "scheme", "retry_limit_seconds"}),
}
# A refused connection is given up after 5 s, a server that says nothing after 40 s.
_ATTEMPTS = 4
_SILENCE_SECONDS = 10.0
_GS_RETRY_SECONDS = "15"
# Answers to questions about a file have no body that names the error.
_OUTAGE = (
    *("NETWORK_CONNECTION", "UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE"),
    *(f"HTTP status {status}" for status in (429, 500, 502, 503, 504)),
)
_REMEDIES = (
    (("NO_SUCH_BUCKET", "ucket does not exist"), "make the bucket, or mend its name"),
    (
        ("OAuth2", "UNAUTHENTICATED", "PERMISSION_DENIED"),
        "check the credentials of this process (GOOGLE_APPLICATION_CREDENTIALS, or the machine's "
        "service account) and what they may do in that bucket",
    ),
    (
        ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
        "check the credentials of this process (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "
        "profile, or the machine's role) and what they may do in that bucket",
    ),
    (
        _OUTAGE,
        "check the network and the endpoint (AWS_ENDPOINT_URL), and run the same command again",
    ),
)


def parse(text: str) -> SplitResult:
    """Returns the parts of a URL: scheme, bucket, path without a slash at its end, and query.

    Raises:
        StoreError: It is malformed, or of a scheme that is not known.
    """
    # Secrets are put into addresses by mistake: nothing behind the path is ever shown.
    shown = re.split("[?#]", text, maxsplit=1)[0]
    if "@" in shown.partition("://")[2].partition("/")[0] or "@" in text[len(shown) :]:
        raise StoreError(
            "a URL of results holds no credentials, since it is shown and passed on",
            "give them in the environment (AWS_ACCESS_KEY_ID, …), a profile or a role",
        )
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise StoreError(f"{shown} is no URL: {error}", "s3://bucket/prefix is one") from error
    if url.scheme not in _OPTIONS:
        known = ", ".join(f"{name}://" for name in _OPTIONS)
        raise StoreError(f"nothing is known of {url.scheme}://", f"use a path, or {known}")
    if re.fullmatch(r"\w[\w.-]+", url.netloc) is None:
        raise StoreError(f"{shown} names no bucket", "s3://bucket/prefix is a URL of results")
    if url.fragment:
        raise StoreError(f"{shown} has a fragment", "leave out what begins with #")
    known = ", ".join(sorted(_OPTIONS[url.scheme]))
    try:
        options = dict(parse_qsl(url.query, strict_parsing=bool(url.query)))
    except ValueError:
        raise StoreError(
            f"the query of {shown} is not made of name=value", f"it knows {known}"
        ) from None
    if unknown := sorted(options.keys() - _OPTIONS[url.scheme]):
        raise StoreError(
            f"nothing is known of {unknown[0]} in the query of {shown}",
            f"the query of {url.scheme}:// knows {known}",
        )
    return url._replace(path=re.sub("/+", "/", url.path).rstrip("/"))


def connect(url: SplitResult) -> Any:
    """Returns the pyarrow file system of a URL.

    Raises:
        OSError: The object store cannot be reached.
        pyarrow.ArrowException: An option of the URL has no meaning.
    """
    # Imported late: it brings the clients of all object stores along.
    from pyarrow import fs

    if url.scheme == "gs":
        query = {"retry_limit_seconds": _GS_RETRY_SECONDS, **dict(parse_qsl(url.query))}
        return fs.FileSystem.from_uri(url._replace(query=urlencode(query)).geturl())[0]
    options, environment = dict(parse_qsl(url.query)), os.environ
    endpoint = options.get("endpoint_override") or (
        environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    )
    scheme, _, host = endpoint.rstrip("/").rpartition("://")
    region = options.get("region")
    if region is None and host:
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "us-east-1")
    return fs.S3FileSystem(
        region=region or fs.resolve_s3_region(url.netloc),
        scheme=options.get("scheme") or scheme or "https",
        endpoint_override=host or None,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        connect_timeout=_SILENCE_SECONDS,
        request_timeout=_SILENCE_SECONDS,
        # A small file is one request; an upload whose part failed is never completed.
        allow_delayed_open=True,
        background_writes=True,
    )


def remedy(error: Exception) -> str | None:
    """Returns what to do about an error of an object store, where its words tell."""
    cures = (cure for marks, cure in _REMEDIES if any(mark in str(error) for mark in marks))
    return next(cures, None)


def is_outage(error: BaseException) -> bool:
    """Tells whether an error, or what it came of, says that an object store is out of reach."""
    told = f"{error} {error.__cause__}"
    return any(mark in told for mark in _OUTAGE)
